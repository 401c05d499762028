//! The encoding of a batch in a shipped log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone_changelog::fuzzing::codec(data));
