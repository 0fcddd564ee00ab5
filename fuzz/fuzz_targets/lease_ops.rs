#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pshare::internals::fuzz_lease_ops(data));
