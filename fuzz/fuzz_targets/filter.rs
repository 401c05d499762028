//! A table's bloom filter.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::filter(data));
