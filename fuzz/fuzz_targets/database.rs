//! A closed database with some bytes overwritten.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::database(data));
