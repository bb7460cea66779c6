//! A warm connection decodes and answers without allocating. One test to the file: the count is the process's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use forebay_resp::{Args, Decoded, Decoder, Frame, LINK_MIN, Limits, Reply};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const PIPELINE: &[u8] = b"*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n\
    *3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$5\r\nvalue\r\n\
    *7\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n\
    ECHO \"\\x41 quoted\"\r\n\
    *0\r\n\
    PING\r\n";

#[test]
fn a_warm_connection_allocates_nothing() {
    let mut connection = (Decoder::new(), Frame::new(), Reply::new());
    let shared = Bytes::from(vec![b'x'; LINK_MIN]);
    serve(&mut connection, &shared);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        serve(&mut connection, &shared);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}

fn serve((decoder, frame, reply): &mut (Decoder, Frame, Reply), shared: &Bytes) {
    let limits = Limits::default();
    let mut rest = PIPELINE;
    while !rest.is_empty() {
        let half = &rest[..rest.len() / 2];
        let decoded = match decoder.decode(half, &limits, frame) {
            Ok(Decoded::Incomplete { .. }) => decoder.decode(rest, &limits, frame),
            decoded => decoded,
        };
        let consumed = match decoded {
            Ok(Decoded::Request { consumed }) => {
                answer(frame.args(rest), reply, shared);
                consumed
            }
            Ok(Decoded::Nothing { consumed }) => consumed,
            other => panic!("{other:?}"),
        };
        rest = &rest[consumed..];
    }
    reply.advance(reply.len());
}

fn answer(args: Args<'_>, reply: &mut Reply, shared: &Bytes) {
    reply.array(args.len() + 6);
    args.iter().for_each(|arg| reply.bulk(arg));
    reply.integer(1234);
    reply.bulk_integer(-1);
    reply.double(0.1);
    reply.null();
    reply.bulk_text(format_args!("{}:{}", args.len(), "text"));
    reply.bulk_shared(shared.clone());
}
