//! How much memory the control groups of a process leave it (Linux's cgroups, both versions).

use std::fs;
use std::path::{Path, PathBuf};

/// The lowest limit of the groups that `/proc/self/cgroup`'s contents name, and of those above them, in bytes. `root` is
/// where their files are mounted. `None` if there is no limit, or none can be read.
fn lowest_limit(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| group_of(line, root))
        .filter_map(|(group, file)| limit_above(&group, file, root))
        .min()
}

/// The directory that a line of `/proc/self/cgroup` stands for, if its group can limit memory, and the file that says so.
fn group_of(line: &str, root: &Path) -> Option<(PathBuf, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    match controllers {
        "" => Some((root.join(path), "memory.max")),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            Some((root.join("memory").join(path), "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// The lowest limit from `group` up to `root`. "max" is no limit, nor is what the first version writes instead.
fn limit_above(group: &Path, file: &str, root: &Path) -> Option<u64> {
    let limit = |dir: &Path| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok();
    group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(limit).min()
}

/// The memory that this process may use at most, the system's cache of its files included, in bytes. `None` without a
/// limit.
pub(super) fn memory_limit() -> Option<u64> {
    lowest_limit(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, limit: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, limit).unwrap();
        };
        let limit = |groups: &str| lowest_limit(groups, dir.path());
        assert_eq!(limit("0::/app/worker\n"), None, "no files");
        write("app/worker/memory.max", "max\n");
        assert_eq!(limit("0::/app/worker\n"), None);
        write("app/memory.max", "1048576\n");
        assert_eq!(limit("0::/app/worker\n"), Some(1 << 20), "of the group above");
        write("app/worker/memory.max", "4096\n");
        assert_eq!(limit("0::/app/worker\n"), Some(4096));
        assert_eq!(limit("0::/app\n"), Some(1 << 20));
        write("memory/app/memory.limit_in_bytes", "8192\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("5:cpu,memory:/app\n4:pids:/other\n"), Some(8192), "the first version");
        assert_eq!(limit("5:memory:/app\n0::/app/worker\n"), Some(4096), "both");
        assert_eq!(limit("4:pids:/app\nnonsense\n1:2\n"), None);
    }
}
