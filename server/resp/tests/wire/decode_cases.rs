//! Streams whose outcome is known, decoded in one piece and in every other way.

use forebay_resp::{Limits, ProtocolError, Reply};

use crate::cases::{self, Case, End};
use crate::transcript::{self, Transcript};

#[test]
fn every_case_ends_as_in_redis() {
    for case in cases::cases() {
        let name = shown(&case);
        let found = transcript::read(&case.stream, &case.client.limits(), || case.stream.len());
        assert_eq!(found.requests, case.requests, "{name}");
        let error = found.error.map(reply_to);
        let expected = match case.end {
            End::Error(text) => Some([b"-ERR ", text, b"\r\n"].concat()),
            End::Clean | End::Waiting => None,
        };
        assert_eq!(error, expected, "{name}");
        assert_eq!(found.consumed == case.stream.len(), case.end == End::Clean, "{name}");
    }
}

#[test]
fn every_case_ends_alike_byte_by_byte_and_split_anywhere() {
    for case in cases::cases() {
        let limits = case.client.limits();
        let at_once = transcript::assert_alike_in_all_chunks(&case.stream, &limits, 7);
        for split in 1..case.stream.len().min(SPLITS_MAX) {
            let mut sizes = [split].into_iter();
            let found = transcript::read(&case.stream, &limits, || sizes.next().unwrap_or(usize::MAX));
            assert_eq!(found, at_once, "{} split at {split}", shown(&case));
        }
    }
}

/// The longest streams are long lines of one letter: their first bytes tell all.
const SPLITS_MAX: usize = 128;

#[test]
fn a_request_of_a_million_arguments_is_linear_byte_by_byte() {
    let count = 1_000_000;
    let stream = format!("*{count}\r\n").into_bytes().into_iter();
    let stream: Vec<u8> = stream.chain(b"$1\r\nx\r\n".repeat(count)).collect();
    let found = transcript::read(&stream, &Limits::default(), || 1);
    assert_eq!(found.requests.len(), 1);
    assert_eq!(found.requests[0].len(), count);
}

#[test]
fn a_decoder_goes_on_to_the_next_request() {
    let Transcript { requests, consumed, error } = transcript::read(
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n\r\nGET b\r\n*0\r\n*1\r\n$4\r\nPING\r\n*1\r\n",
        &Limits::default(),
        || 3,
    );
    assert_eq!(requests, [vec![&b"GET"[..], b"a"], vec![b"GET", b"b"], vec![b"PING"]]);
    assert_eq!((consumed, error), (47, None));
}

fn reply_to(error: ProtocolError) -> Vec<u8> {
    let mut reply = Reply::new();
    reply.protocol_error(error);
    reply.chunks().flatten().copied().collect()
}

fn shown(case: &Case) -> String {
    case.stream[..case.stream.len().min(80)].escape_ascii().to_string()
}
