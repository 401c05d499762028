//! Asking the processor, or the system, for memory before it is used.

#![allow(unsafe_code)]

/// What memory is fetched in, in bytes, on the machines we know.
pub(crate) const LINE_BYTES: usize = 64;

/// Asks for the cache line at `place`: a hint, for any address.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing into the program and never faults, whatever the address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks for `lines` cache lines from `place` on.
#[inline(always)]
pub(crate) fn prefetch_lines<T>(place: *const T, lines: usize) {
    (0..lines).for_each(|line| prefetch(place.cast::<u8>().wrapping_add(line * LINE_BYTES)));
}

/// How many cache lines are fetched ahead of a write.
const AHEAD_LINES: usize = 4;

/// Asks for what the next entry will be written to, where each goes behind the one before: every atomic step of a commit
/// waits until the lines of the writes before it are there.
#[inline(always)]
pub(crate) fn prefetch_next_write<T>(place: *const T) {
    prefetch_lines(place, AHEAD_LINES);
}

/// Asks for the cache line of `bytes` that `at` lies in; nothing if that is outside.
#[inline]
pub(crate) fn prefetch_at(bytes: &[u8], at: usize) {
    if at < bytes.len() {
        prefetch(bytes.as_ptr().wrapping_add(at));
    }
}

/// What an advice about memory has to begin with a multiple of: pages of the system, which are one of these.
#[cfg(target_os = "linux")]
const PAGE_BYTES: [usize; 2] = [4 << 10, 64 << 10];

/// Asks the system to have a part of a mapped file in memory soon, without waiting for it. A hint, which may be refused.
pub(crate) fn will_read(mapped: &[u8]) {
    #[cfg(target_os = "linux")]
    if !mapped.is_empty() {
        let advise = |page_bytes: usize| {
            let skew = mapped.as_ptr().addr() % page_bytes;
            let start = mapped.as_ptr().wrapping_sub(skew).cast_mut().cast();
            // SAFETY: this advice changes neither contents nor mappings, whatever lies in the pages of the slice.
            unsafe { rustix::mm::madvise(start, mapped.len() + skew, rustix::mm::Advice::WillNeed) }
        };
        let _refused = PAGE_BYTES.into_iter().find(|page_bytes| advise(*page_bytes) != Err(rustix::io::Errno::INVAL));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = mapped;
}
