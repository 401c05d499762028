//! Threads that give way to others.

/// Has those who call the database go before this thread where they share processors, by as much as `nice` counts.
pub(crate) fn give_way(niceness: i32) {
    // On Linux it is the thread's own. Refused, all are alike.
    #[cfg(target_os = "linux")]
    let _refused = rustix::process::nice(niceness);
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}
