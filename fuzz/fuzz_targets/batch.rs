//! The encoding of a write batch, which is the payload of a log record.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siltstone::fuzzing::batch(data));
