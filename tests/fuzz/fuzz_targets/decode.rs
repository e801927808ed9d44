//! Any bytes as a stream of packets: nothing panics, and what decodes survives encoding.
#![no_main]

#[path = "../../../src/mqtt/tests/common/mod.rs"]
mod common;

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::check_stream(data));
