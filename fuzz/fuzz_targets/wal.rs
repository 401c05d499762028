//! A segment of the write-ahead log: replay, and replay of what replay left.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::wal(data));
