//! Segments of a shipped log, read by a source and recovered by a sink.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone_changelog::fuzzing::segment(data));
