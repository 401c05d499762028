//! A block of a table: parsing, checking, searching, stepping.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::block(data));
