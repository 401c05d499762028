//! [`MemoryLimit`]: a session in less memory than its data takes, the system's cache of its files included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A control group (cgroup v2) with a limit of memory and no swap, removed when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    dir: PathBuf,
}

impl MemoryLimit {
    /// A group below the one of this process, or below the nearest one above it that hands on its memory controller.
    /// Nothing is changed in groups that are there.
    ///
    /// # Errors
    /// What is missing, for the report: `memory.max` of cgroup v2 is the one way that is tried.
    pub(super) fn new(mib: u64) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::below(own_group(&mounts, &groups)?, mib)
    }

    fn below(OwnGroup { root, own }: OwnGroup, mib: u64) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let parents = own.ancestors().take_while(|dir| dir.starts_with(&root));
        let parent = parents.into_iter().find(|dir| hands_on_memory(dir)).ok_or(
            "a memory limit needs a cgroup v2 whose memory controller is handed on; this process is in none".to_owned(),
        )?;
        let name = format!("siltstone-bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let limit = MemoryLimit { dir: parent.join(name) };
        let failed = |error: io::Error| format!("no memory limit can be set in {}: {error}", parent.display());
        fs::create_dir(&limit.dir).map_err(failed)?;
        fs::write(limit.dir.join("memory.max"), (mib << 20).to_string()).map_err(failed)?;
        // Without swap there is no such file.
        let _ = fs::write(limit.dir.join("memory.swap.max"), "0");
        Ok(limit)
    }

    /// `program`, which will run in the group: a shell enters it and becomes the program.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs")).arg(program);
        command
    }

    /// Whether a process of the group was killed because it needed more than the limit.
    pub(super) fn was_exceeded(&self) -> bool {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Its processes are gone by now. A group without processes costs nothing if it stays.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where the groups are, and the one of this process.
struct OwnGroup {
    root: PathBuf,
    own: PathBuf,
}

/// Finds the mount of cgroup v2 in the lines of `/proc/self/mounts`, and the group in those of `/proc/self/cgroup`.
fn own_group(mounts: &str, groups: &str) -> Result<OwnGroup, String> {
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields.get(2) == Some(&"cgroup2"));
    let root = mount.and_then(|fields| fields.get(1).map(PathBuf::from));
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    match (root, path) {
        (Some(root), Some(path)) => Ok(OwnGroup { own: root.join(path), root }),
        _ => Err("a memory limit needs cgroup v2, which is not mounted".to_owned()),
    }
}

/// Whether groups made in `dir` have a memory controller.
fn hands_on_memory(dir: &Path) -> bool {
    let handed_on = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    handed_on.split_whitespace().any(|controller| controller == "memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let groups = "4:memory:/a\n0::/user.slice/session-3.scope\n";
        let OwnGroup { root, own } = own_group(mounts, groups).unwrap();
        assert_eq!(root, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(own, Path::new("/sys/fs/cgroup/unified/user.slice/session-3.scope"));
        assert!(own_group("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n", groups).is_err());
        assert!(own_group(mounts, "4:memory:/a\n").is_err());
    }

    #[test]
    fn a_group_is_made_below_the_nearest_that_hands_on_memory() {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("slice");
        let own = slice.join("scope");
        fs::create_dir_all(&own).unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "memory\n").unwrap();
        let group = || OwnGroup { root: root.path().to_owned(), own: own.clone() };
        fs::write(slice.join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "cpu\n").unwrap();
        let limit = MemoryLimit::below(group(), 64).unwrap();
        assert_eq!(limit.dir.parent(), Some(&*slice));
        assert_eq!(fs::read_to_string(limit.dir.join("memory.max")).unwrap(), "67108864");
        assert!(!limit.was_exceeded());
        fs::write(limit.dir.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert!(limit.was_exceeded());
        fs::write(slice.join("cgroup.subtree_control"), "cpu\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "memoryless\n").unwrap();
        assert!(MemoryLimit::below(group(), 64).unwrap_err().contains("handed on"));
    }

    #[test]
    fn a_command_enters_the_group_before_it_becomes_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let limit = MemoryLimit { dir: dir.path().join("group") };
        fs::create_dir(&limit.dir).unwrap();
        let output = limit.command(Path::new("/bin/echo")).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b c\n");
        let entered = fs::read_to_string(limit.dir.join("cgroup.procs")).unwrap();
        assert!(entered.trim().parse::<u32>().is_ok(), "{entered}");
        fs::remove_file(limit.dir.join("cgroup.procs")).unwrap();
    }
}
