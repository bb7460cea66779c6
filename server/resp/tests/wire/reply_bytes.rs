//! Replies to the byte, in both protocols.

use forebay_resp::{Protocol, ProtocolError, Reply};

/// What `say` appends in RESP2 and in RESP3.
#[track_caller]
fn check(say: impl Fn(&mut Reply), resp2: &str, resp3: &str) {
    for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
        let mut reply = Reply::new();
        reply.set_protocol(protocol);
        say(&mut reply);
        let bytes: Vec<u8> = reply.chunks().flatten().copied().collect();
        assert_eq!(bytes.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string());
    }
}

#[track_caller]
fn check_both(say: impl Fn(&mut Reply), bytes: &str) {
    check(say, bytes, bytes);
}

#[test]
fn words_that_both_protocols_share() {
    check_both(Reply::ok, "+OK\r\n");
    check_both(|reply| reply.simple("PONG"), "+PONG\r\n");
    check_both(|reply| reply.integer(-1), ":-1\r\n");
    check_both(|reply| reply.integer(i64::MIN), ":-9223372036854775808\r\n");
    check_both(|reply| reply.bulk(b""), "$0\r\n\r\n");
    check_both(|reply| reply.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n");
    check_both(|reply| reply.bulk_integer(1234), "$4\r\n1234\r\n");
    check_both(|reply| reply.bulk_text(format_args!("plain")), "$5\r\nplain\r\n");
    check_both(|reply| reply.bulk_text(format_args!("{}-{}", 1, "x")), "$3\r\n1-x\r\n");
    check_both(|reply| reply.array(0), "*0\r\n");
    check_both(|reply| reply.array(1000), "*1000\r\n");
    check_both(|reply| reply.raw(b":1\r\n"), ":1\r\n");
}

#[test]
fn words_that_only_resp3_has() {
    check(Reply::null, "$-1\r\n", "_\r\n");
    check(Reply::null_array, "*-1\r\n", "_\r\n");
    check(|reply| reply.boolean(true), ":1\r\n", "#t\r\n");
    check(|reply| reply.boolean(false), ":0\r\n", "#f\r\n");
    check(|reply| reply.map(2), "*4\r\n", "%2\r\n");
    check(|reply| reply.set(2), "*2\r\n", "~2\r\n");
    check(|reply| reply.push(2), "*2\r\n", ">2\r\n");
    check(|reply| reply.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
    check(|reply| reply.double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
    check(|reply| reply.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
    check(|reply| reply.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n");
    check(
        |reply| reply.big_number("12345678901234567890"),
        "$20\r\n12345678901234567890\r\n",
        "(12345678901234567890\r\n",
    );
    check(|reply| reply.verbatim("txt", b"hi\r\n"), "$4\r\nhi\r\n\r\n", "=8\r\ntxt:hi\r\n\r\n");
    check(|reply| reply.verbatim("m", b""), "$0\r\n\r\n", "=4\r\nm  :\r\n");
    check(|reply| reply.verbatim("mark", b""), "$0\r\n\r\n", "=4\r\nmar:\r\n");
}

#[test]
fn attributes_are_for_resp3_alone() {
    check(
        |reply| {
            if reply.attribute(1) {
                reply.bulk(b"ttl");
                reply.integer(3600);
            }
            reply.bulk(b"v");
        },
        "$1\r\nv\r\n",
        "|1\r\n$3\r\nttl\r\n:3600\r\n$1\r\nv\r\n",
    );
}

#[test]
fn an_error_cannot_hold_a_second_reply() {
    check_both(|reply| reply.error("ERR no such key"), "-ERR no such key\r\n");
    check_both(|reply| reply.error("ERR a\r\n+OK\r\n"), "-ERR a  +OK\r\n");
    check_both(|reply| reply.error("\r\n"), "-\r\n");
    check_both(|reply| reply.simple("a\nb\r"), "+a b\r\n");
    check_both(|reply| reply.error(b"ERR \xc3\xa9"), "-ERR \u{e9}\r\n");
}

#[test]
fn a_protocol_error_repeats_the_byte_that_was_wrong() {
    let mut reply = Reply::new();
    reply.protocol_error(ProtocolError::ExpectedBulk(0xff));
    assert_eq!(reply.chunks().collect::<Vec<_>>(), [b"-ERR Protocol error: expected '$', got '\xff'\r\n"]);
    assert_eq!(ProtocolError::ExpectedBulk(b'x').to_string(), "Protocol error: expected '$', got 'x'");
}

#[test]
fn a_run_that_is_taken_back_leaves_nothing() {
    let mut reply = Reply::new();
    reply.ok();
    let mark = reply.mark();
    reply.array(2);
    reply.bulk_shared(vec![b'x'; forebay_resp::LINK_MIN].into());
    reply.rewind(mark);
    reply.integer(7);
    assert_eq!(reply.chunks().collect::<Vec<_>>(), [b"+OK\r\n:7\r\n"]);
}

#[test]
fn an_idle_connection_keeps_almost_nothing() {
    let mut reply = Reply::new();
    reply.bulk(&[b'x'; 100_000]);
    reply.clear();
    reply.shrink_to(256);
    assert!(reply.is_empty() && reply.allocated() <= 256);
}
