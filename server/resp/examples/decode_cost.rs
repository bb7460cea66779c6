//! What a request costs to decode, and a reply to write, in nanoseconds:
//! `cargo run --release -p forebay-resp --example decode_cost`.

use std::hint::black_box;
use std::time::Instant;

use bytes::Buf;
use forebay_resp::{Decoded, Decoder, Frame, Limits, Reply};

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$10\r\nproduct:42\r\n";
const MGET: &[u8] = b"*5\r\n$4\r\nMGET\r\n$2\r\nk1\r\n$2\r\nk2\r\n$2\r\nk3\r\n$2\r\nk4\r\n";

fn main() {
    let get = decoder_of(GET);
    let mget = decoder_of(MGET);
    report("decode GET key", best_of(get));
    report("decode MGET of 4 keys", best_of(mget));
    let mut reply = Reply::new();
    report("bulk of 100 bytes", best_of(|| say(&mut reply, |reply| reply.bulk(&[b'v'; 100]))));
    report("integer 7", best_of(|| say(&mut reply, |reply| reply.integer(7))));
    report("integer 1234567", best_of(|| say(&mut reply, |reply| reply.integer(1_234_567))));
    report("null", best_of(|| say(&mut reply, Reply::null)));
}

fn decoder_of(stream: &'static [u8]) -> impl FnMut() {
    let (mut decoder, mut frame, limits) = (Decoder::new(), Frame::new(), Limits::default());
    move || {
        let stream = black_box(stream);
        match decoder.decode(stream, &limits, &mut frame) {
            Ok(Decoded::Request { consumed }) => black_box((consumed, frame.args(stream).name())),
            other => panic!("{other:?}"),
        };
    }
}

/// One reply, emptied again when a connection would write.
fn say(reply: &mut Reply, what: impl Fn(&mut Reply)) {
    what(black_box(reply));
    if reply.len() > 16 * 1024 {
        reply.advance(reply.len());
    }
}

const CALLS: u32 = 2_000_000;
const ROUNDS: usize = 7;

/// The quickest round disturbs the figure least.
fn best_of(mut call: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        (0..CALLS).for_each(|_| call());
        begin.elapsed().as_nanos() as f64 / f64::from(CALLS)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn report(what: &str, nanoseconds: f64) {
    println!("{what:24} {nanoseconds:6.1} ns");
}
