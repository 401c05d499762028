//! A whole table file: opening, reading by both means, verifying.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::table(data));
