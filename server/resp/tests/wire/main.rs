//! The wire from outside: bytes in, requests out; replies in, bytes out.

mod cases;
mod decode_cases;
mod fuzz_twin;
mod reply_bytes;
mod round_trips;
mod transcript;
