//! Any bytes at the decoder: `cargo +nightly fuzz run decode` in `server/resp`. `tests/wire/fuzz_twin.rs` does the
//! same with every test run.
#![no_main]

#[path = "../../tests/wire/transcript.rs"]
mod transcript;

libfuzzer_sys::fuzz_target!(|data: &[u8]| transcript::exercise(data));
