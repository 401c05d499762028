//! A manifest: reading it, and writing its state anew.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::manifest(data));
