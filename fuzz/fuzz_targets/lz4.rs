//! LZ4 as stored: a compressed block of a table, and bytes that must come back from being compressed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::lz4(data));
