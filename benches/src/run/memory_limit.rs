//! [`MemoryLimit`]: a session in less memory than its data takes, the system's cache of its files included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the files of a control group are called, which is all that differs between the two versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// The memory controller has a hierarchy of its own.
    V1,
    /// One hierarchy, in which a group hands controllers on to those below it.
    V2,
}

/// A control group with a limit of memory and no swap, removed when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    version: Version,
    dir: PathBuf,
}

impl MemoryLimit {
    /// A group below the one of this process, or below the nearest one above it that hands on its memory controller.
    /// Nothing is changed in groups that are there.
    ///
    /// # Errors
    /// What is missing, for the report.
    pub(super) fn new(mib: u64) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own =
            [Version::V2, Version::V1].into_iter().filter_map(|version| OwnGroup::find(version, &mounts, &groups));
        let parent = own.into_iter().find_map(|group| group.parent().map(|dir| (group.version, dir)));
        let (version, parent) = parent.ok_or("a memory limit needs a cgroup whose memory controller is handed on")?;
        Self::below(version, &parent, mib)
    }

    fn below(version: Version, parent: &Path, mib: u64) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("siltstone-bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let limit = MemoryLimit { version, dir: parent.join(name) };
        let failed = |error: io::Error| format!("no memory limit can be set in {}: {error}", parent.display());
        fs::create_dir(&limit.dir).map_err(failed)?;
        fs::write(limit.dir.join(version.limit()), (mib << 20).to_string()).map_err(failed)?;
        let (swap, most) = version.swap(mib);
        // Without swap there is no such file.
        let _ = fs::write(limit.dir.join(swap), most.to_string());
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
        let events = fs::read_to_string(self.dir.join(self.version.events())).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Its processes are gone by now. A group without processes costs nothing if it stays.
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Version {
    /// Its lines in `/proc/self/cgroup` begin with a number and this.
    fn is_of(self, controllers: &str) -> bool {
        match self {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => controllers.is_empty(),
        }
    }

    /// Whether a mount with this type and these options is one of its.
    fn is_mounted(self, kind: &str, options: &str) -> bool {
        match self {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::V2 => kind == "cgroup2",
        }
    }

    fn limit(self) -> &'static str {
        match self {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    /// What keeps a group from swapping, and its value: version 1 limits memory and swap together.
    fn swap(self, mib: u64) -> (&'static str, u64) {
        match self {
            Version::V1 => ("memory.memsw.limit_in_bytes", mib << 20),
            Version::V2 => ("memory.swap.max", 0),
        }
    }

    fn events(self) -> &'static str {
        match self {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }
    }
}

/// Where the groups of a version are, and the one of this process.
#[derive(Debug)]
struct OwnGroup {
    version: Version,
    root: PathBuf,
    own: PathBuf,
}

impl OwnGroup {
    /// Finds the mount in the lines of `/proc/self/mounts`, and the group in those of `/proc/self/cgroup`.
    fn find(version: Version, mounts: &str, groups: &str) -> Option<Self> {
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounts.find_map(|fields| match fields[..] {
            [_, dir, kind, options, ..] => version.is_mounted(kind, options).then(|| PathBuf::from(dir)),
            _ => None,
        })?;
        let path = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            version.is_of(controllers).then(|| path.trim_start_matches('/'))
        })?;
        Some(OwnGroup { version, own: root.join(path), root })
    }

    /// The nearest group in which groups with a memory controller can be made.
    fn parent(&self) -> Option<PathBuf> {
        let mut groups = self.own.ancestors().take_while(|dir| dir.starts_with(&self.root));
        let hands_on = |dir: &&Path| match self.version {
            Version::V1 => dir.join(self.version.limit()).exists(),
            Version::V2 => {
                let handed_on = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
                handed_on.split_whitespace().any(|controller| controller == "memory")
            }
        };
        groups.find(hands_on).map(Path::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/memory cgroup rw,relatime,memory 0 0\n\
        cgroup2 /c/unified cgroup2 rw 0 0\n";

    #[test]
    fn the_own_group_is_found() {
        let groups = "4:memory:/a\n1:cpu:/b\n0::/user.slice/session-3.scope\n";
        let find = |version| OwnGroup::find(version, MOUNTS, groups).unwrap();
        let OwnGroup { root, own, .. } = find(Version::V2);
        assert_eq!(root, Path::new("/c/unified"));
        assert_eq!(own, Path::new("/c/unified/user.slice/session-3.scope"));
        let OwnGroup { root, own, .. } = find(Version::V1);
        assert_eq!((root.as_path(), own.as_path()), (Path::new("/c/memory"), Path::new("/c/memory/a")));
        assert!(OwnGroup::find(Version::V2, "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n", groups).is_none());
        assert!(OwnGroup::find(Version::V2, MOUNTS, "4:memory:/a\n").is_none());
        assert!(OwnGroup::find(Version::V1, MOUNTS, "1:cpu:/b\n0::/a\n").is_none());
    }

    #[test]
    fn a_group_is_made_below_the_nearest_that_hands_on_memory() {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("slice");
        let own = slice.join("scope");
        fs::create_dir_all(&own).unwrap();
        let group = OwnGroup { version: Version::V2, root: root.path().to_owned(), own: own.clone() };
        fs::write(root.path().join("cgroup.subtree_control"), "memory\n").unwrap();
        fs::write(slice.join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "cpu\n").unwrap();
        assert_eq!(group.parent().as_ref(), Some(&slice));
        fs::write(slice.join("cgroup.subtree_control"), "cpu\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "memoryless\n").unwrap();
        assert_eq!(group.parent(), None);
        let group = OwnGroup { version: Version::V1, ..group };
        assert_eq!(group.parent(), None);
        fs::write(own.join("memory.limit_in_bytes"), "").unwrap();
        assert_eq!(group.parent(), Some(own));
    }

    #[test]
    fn a_group_has_its_limit_and_tells_of_what_it_killed() {
        let parent = tempfile::tempdir().unwrap();
        let files = [
            (Version::V1, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "67108864", "memory.oom_control"),
            (Version::V2, "memory.max", "memory.swap.max", "0", "memory.events"),
        ];
        for (version, limit_file, swap_file, swap, events) in files {
            let limit = MemoryLimit::below(version, parent.path(), 64).unwrap();
            assert_eq!(fs::read_to_string(limit.dir.join(limit_file)).unwrap(), "67108864");
            assert_eq!(fs::read_to_string(limit.dir.join(swap_file)).unwrap(), swap);
            assert!(!limit.was_exceeded());
            fs::write(limit.dir.join(events), "oom 1\noom_kill 1\n").unwrap();
            assert!(limit.was_exceeded());
        }
        assert!(MemoryLimit::below(Version::V2, &parent.path().join("none"), 64).unwrap_err().contains("none"));
    }

    #[test]
    fn a_command_enters_the_group_before_it_becomes_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let limit = MemoryLimit { version: Version::V2, dir: dir.path().join("group") };
        fs::create_dir(&limit.dir).unwrap();
        let output = limit.command(Path::new("/bin/echo")).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b c\n");
        let entered = fs::read_to_string(limit.dir.join("cgroup.procs")).unwrap();
        assert!(entered.trim().parse::<u32>().is_ok(), "{entered}");
        fs::remove_file(limit.dir.join("cgroup.procs")).unwrap();
    }
}
