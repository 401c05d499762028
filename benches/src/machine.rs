//! What the figures were measured on.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// Processor, cores, memory and kernel, in one line; what Linux does not tell is left out.
pub fn describe() -> String {
    let mut parts = Vec::new();
    if let Some(model) = value_in("/proc/cpuinfo", "model name") {
        parts.push(model.trim_start_matches([':', ' ', '\t']).to_owned());
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        parts.push(format!("{cores} cores"));
    }
    let memory_kib =
        value_in("/proc/meminfo", "MemTotal:").and_then(|text| text.split_whitespace().next()?.parse().ok());
    if let Some(kib) = memory_kib {
        parts.push(format!("{} GiB", u64::div_ceil(kib, 1 << 20)));
    }
    if let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        parts.push(format!("Linux {}", release.trim()));
    }
    parts.join(", ")
}

/// As [`describe`], with the file system that holds `dir`.
pub fn describe_with(dir: &Path) -> String {
    describe() + &file_system(dir).map_or(String::new(), |kind| format!(", on {kind}"))
}

/// The type of the file system that holds `dir`, if Linux tells: that of the longest mount point above it.
pub fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = fields.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// The compiler that built this program.
pub fn rustc() -> &'static str {
    env!("SILTSTONE_RUSTC")
}

/// The version of a crate that this program was built with, or would be with all features: the one in the workspace's
/// lock file.
pub fn crate_version(name: &str) -> Option<&'static str> {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let named = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != named);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// What one reading of the clock costs, in nanoseconds: a latency is too long by about this.
pub fn clock_ns() -> f64 {
    const READINGS: u32 = 10_000;
    let started = Instant::now();
    for _ in 0..READINGS {
        black_box(Instant::now());
    }
    started.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

fn value_in(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_proc_is_proc() {
        if Path::new("/proc/self").exists() {
            assert_eq!(file_system(Path::new("/proc")).as_deref(), Some("proc"));
            assert!(describe().contains("cores"), "{}", describe());
        }
        assert_eq!(file_system(Path::new("/absent/directory")), None);
        assert!(clock_ns() > 0.0);
    }

    #[test]
    fn versions_come_from_the_lock_file_and_from_the_compiler() {
        assert_eq!(crate_version("siltstone"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(crate_version("no-such-crate"), None);
        assert!(rustc().starts_with("rustc 1."), "{}", rustc());
    }
}
