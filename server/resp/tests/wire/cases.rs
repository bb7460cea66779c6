//! Streams of bytes and what redis-server 7.0.15 makes of them.

use forebay_resp::Limits;

/// One stream: the requests in it, and how it ends.
pub(crate) struct Case {
    pub(crate) stream: Vec<u8>,
    pub(crate) requests: &'static [&'static [&'static [u8]]],
    pub(crate) end: End,
    pub(crate) client: Client,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left over.
    Clean,
    /// The rest waits for more.
    Waiting,
    /// The connection is closed after this error.
    Error(&'static [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Known,
    /// Has not sent the password that is required.
    Stranger,
    /// Where `proto-max-bulk-len` is 1 MiB, the least that Redis lets one set.
    SmallBulks,
}

impl Client {
    pub(crate) fn limits(self) -> Limits {
        let limits = Limits::default();
        match self {
            Self::Known => limits,
            Self::Stranger => Limits { authenticated: false, ..limits },
            Self::SmallBulks => Limits { bulk: 1 << 20, ..limits },
        }
    }
}

const INVALID_COUNT: End = End::Error(b"Protocol error: invalid multibulk length");
const INVALID_BULK: End = End::Error(b"Protocol error: invalid bulk length");
const UNBALANCED: End = End::Error(b"Protocol error: unbalanced quotes in request");
const TOO_BIG_INLINE: End = End::Error(b"Protocol error: too big inline request");
const TOO_BIG_COUNT: End = End::Error(b"Protocol error: too big mbulk count string");
const TOO_BIG_BULK: End = End::Error(b"Protocol error: too big bulk count string");
const STRANGE_COUNT: End = End::Error(b"Protocol error: unauthenticated multibulk length");
const STRANGE_BULK: End = End::Error(b"Protocol error: unauthenticated bulk length");

const PING: &[&[u8]] = &[b"PING"];
const KIB_64: usize = 64 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(arrays());
    cases.extend(wrong_counts());
    cases.extend(wrong_bulks());
    cases.extend(lines());
    cases.extend(quoted_lines());
    cases.extend(too_long());
    cases.extend(strangers());
    cases.extend(small_bulks());
    cases
}

fn case(stream: impl AsRef<[u8]>, requests: &'static [&'static [&'static [u8]]], end: End) -> Case {
    Case { stream: stream.as_ref().to_vec(), requests, end, client: Client::Known }
}

fn arrays() -> Vec<Case> {
    vec![
        case("*1\r\n$4\r\nPING\r\n", &[PING], End::Clean),
        case("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &[&[b"ECHO", b""]], End::Clean),
        case("*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\0$\r\n", &[&[b"ECHO", b"\r\n\0$"]], End::Clean),
        case("*2\r\n$4\r\nECHO\r\n$12\r\nhello, world\r\n", &[&[b"ECHO", b"hello, world"]], End::Clean),
        case("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\nPING\r\n", &[PING, PING, PING], End::Clean),
        case("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI", &[PING], End::Waiting),
        // Nothing is asked for.
        case("*0\r\n*1\r\n$4\r\nPING\r\n", &[PING], End::Clean),
        case("*-1\r\n*1\r\n$4\r\nPING\r\n", &[PING], End::Clean),
        case("*-9223372036854775808\r\nPING\r\n", &[PING], End::Clean),
        // Behind `\r`, and behind an argument, any bytes pass for a line's end.
        case("*1\rx$4\rxPINGxx", &[PING], End::Clean),
        case("*1\r\r$4\r\rPING\r\r", &[PING], End::Clean),
        // What is wrong only shows when its line is whole.
        case("*x", &[], End::Waiting),
        case("*x\r", &[], End::Waiting),
        case("*1\r\nx", &[], End::Waiting),
        case("*1\r\nx\r", &[], End::Waiting),
        case("*1\n$4\nPING\n", &[], End::Waiting),
        case("*2147483647\r\n", &[], End::Waiting),
        case("*1\r\n$536870912\r\n", &[], End::Waiting),
    ]
}

fn wrong_counts() -> Vec<Case> {
    let counts = [
        "",
        "x",
        "1x",
        "+1",
        " 1",
        "1 ",
        "01",
        "00",
        "-",
        "-0",
        "-01",
        "1.0",
        "0x1",
        "2147483648",
        "3000000000",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "11111111111111111111",
        "111111111111111111111",
        "1\n",
    ];
    let mut cases: Vec<_> = counts.iter().map(|count| case(format!("*{count}\r\n"), &[], INVALID_COUNT)).collect();
    cases.push(case("PING\r\n*x\r\n", &[PING], INVALID_COUNT));
    cases
}

fn wrong_bulks() -> Vec<Case> {
    let lengths = [
        "",
        "x",
        "1x",
        "+1",
        " 1",
        "01",
        "00",
        "-",
        "-0",
        "-1",
        "-100",
        "536870913",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "111111111111111111111",
        "blabla",
        "$1",
    ];
    let mut cases: Vec<_> =
        lengths.iter().map(|length| case(format!("*2\r\n$4\r\nPING\r\n${length}\r\n"), &[], INVALID_BULK)).collect();
    cases.extend([
        case("*1\r\n*1\r\n", &[], End::Error(b"Protocol error: expected '$', got '*'")),
        case("*1\r\n+PING\r\n", &[], End::Error(b"Protocol error: expected '$', got '+'")),
        case("*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", &[], End::Error(b"Protocol error: expected '$', got 'f'")),
        case(b"*1\r\n\xff\r\n", &[], End::Error(b"Protocol error: expected '$', got '\xff'")),
        case("*1\r\n'\r\n", &[], End::Error(b"Protocol error: expected '$', got '''")),
        case("*1\r\n\n\r\n", &[], End::Error(b"Protocol error: expected '$', got ' '")),
        case("*1\r\n\r\n", &[], End::Error(b"Protocol error: expected '$', got ' '")),
        case("*2\r\n$1\r\nabc\r\n", &[], End::Error(b"Protocol error: expected '$', got ' '")),
        case("*2\r\n$4\r\nPINGPING\r\n", &[], End::Error(b"Protocol error: expected '$', got 'N'")),
    ]);
    cases
}

fn lines() -> Vec<Case> {
    vec![
        case("PING\r\n", &[PING], End::Clean),
        case("PING\n", &[PING], End::Clean),
        case("PING", &[], End::Waiting),
        case("PING\r", &[], End::Waiting),
        case("\r\n\n \t\r\n\x0b\x0c\r\nPING\r\n", &[PING], End::Clean),
        case("\r\r\nPING\r\n", &[PING], End::Clean),
        case("  ECHO \t hi  \r\n", &[&[b"ECHO", b"hi"]], End::Clean),
        case("ECHO\rhi\n", &[&[b"ECHO", b"hi"]], End::Clean),
        // Vertical tab and form feed are blanks before a word, and letters within one.
        case("\x0bECHO \x0ca\x0bb\x0c\r\n", &[&[b"ECHO", b"a\x0bb\x0c"]], End::Clean),
        case("ECHO \\x41\\n\r\n", &[&[b"ECHO", b"\\x41\\n"]], End::Clean),
        case("ECHO $1*2\r\n", &[&[b"ECHO", b"$1*2"]], End::Clean),
        case(b"ECHO \xff\xfe\r\n", &[&[b"ECHO", b"\xff\xfe"]], End::Clean),
        // A NUL hides everything behind it, for good.
        case("PING\0\r\nPING\r\n", &[], End::Waiting),
        case("*1\0\r\n$4\r\nPING\r\n", &[], End::Waiting),
        case("*1\r\n$4\0\r\nPING\r\n", &[], End::Waiting),
    ]
}

fn quoted_lines() -> Vec<Case> {
    vec![
        case("ECHO \"\"\r\n", &[&[b"ECHO", b""]], End::Clean),
        case("ECHO ''\r\n", &[&[b"ECHO", b""]], End::Clean),
        case("\"\"''\r\n", &[], UNBALANCED),
        case("ECHO \"a b\"\r\n", &[&[b"ECHO", b"a b"]], End::Clean),
        case("ECHO 'a b'\r\n", &[&[b"ECHO", b"a b"]], End::Clean),
        case("ECHO \"it's\"\r\n", &[&[b"ECHO", b"it's"]], End::Clean),
        case("ECHO 'say \"hi\"'\r\n", &[&[b"ECHO", b"say \"hi\""]], End::Clean),
        case("ECHO ab\"c d\"\r\n", &[&[b"ECHO", b"abc d"]], End::Clean),
        case("ECHO ab'c d'\r\n", &[&[b"ECHO", b"abc d"]], End::Clean),
        case(r#"ECHO "\n\r\t\b\a""#.to_owned() + "\n", &[&[b"ECHO", b"\n\r\t\x08\x07"]], End::Clean),
        case(r#"ECHO "\"\\\'\q\0""#.to_owned() + "\n", &[&[b"ECHO", b"\"\\'q0"]], End::Clean),
        case(r#"ECHO "\x00\xfF\X41""#.to_owned() + "\n", &[&[b"ECHO", b"\x00\xffX41"]], End::Clean),
        case(r#"ECHO "\x4\x4g\xg4\x""#.to_owned() + "\n", &[&[b"ECHO", b"x4x4gxg4x"]], End::Clean),
        case(r"ECHO '\n\x41\'\\ '".to_owned() + "\n", &[&[b"ECHO", b"\\n\\x41'\\\\ "]], End::Clean),
        case(r"ECHO 'a\\'".to_owned() + "\n", &[], UNBALANCED),
        case("ECHO \"a\rb\"\r\n", &[&[b"ECHO", b"a\rb"]], End::Clean),
        case("ECHO \"a\"\x0b\r\n", &[&[b"ECHO", b"a"]], End::Clean),
        case("ECHO \"a\"\r\r\n", &[&[b"ECHO", b"a"]], End::Clean),
        case("ECHO \"a\r\n", &[], UNBALANCED),
        case("ECHO 'a\r\n", &[], UNBALANCED),
        case("ECHO \"\r\n", &[], UNBALANCED),
        case("ECHO '\r\n", &[], UNBALANCED),
        case("ECHO \"a\"b\r\n", &[], UNBALANCED),
        case("ECHO 'a'b\r\n", &[], UNBALANCED),
        case("ECHO 'a'\"b\"\r\n", &[], UNBALANCED),
        case("ECHO \"a\\\r\n", &[], UNBALANCED),
        case("ECHO \"a\\\"\r\n", &[], UNBALANCED),
        case("ECHO 'a\\'\r\n", &[], UNBALANCED),
        case("ECHO \"\\x4\r\n", &[], UNBALANCED),
        case("PING\r\nECHO \"\r\n", &[PING], UNBALANCED),
    ]
}

fn too_long() -> Vec<Case> {
    vec![
        case("x".repeat(KIB_64), &[], End::Waiting),
        case("x".repeat(KIB_64 + 1), &[], TOO_BIG_INLINE),
        case("\0".repeat(KIB_64), &[], End::Waiting),
        case("\0".to_owned() + &"A\n".repeat(KIB_64 / 2), &[], TOO_BIG_INLINE),
        case("*".repeat(KIB_64), &[], End::Waiting),
        case("*".repeat(KIB_64 + 1), &[], TOO_BIG_COUNT),
        case("*\0".to_owned() + &"A\r\n".repeat(KIB_64 / 3), &[], TOO_BIG_COUNT),
        case("*".to_owned() + &"1".repeat(KIB_64 - 1) + "\r\n", &[], INVALID_COUNT),
        case("*1\r\n".to_owned() + &"$".repeat(KIB_64), &[], End::Waiting),
        case("*1\r\n".to_owned() + &"$".repeat(KIB_64 + 1), &[], TOO_BIG_BULK),
        case("*1\r\n".to_owned() + &"x".repeat(KIB_64 + 1), &[], TOO_BIG_BULK),
        case("*1\r\n$".to_owned() + &"1".repeat(KIB_64 - 1) + "\r\n", &[], INVALID_BULK),
    ]
}

fn strangers() -> Vec<Case> {
    let mut cases = vec![
        case("*10\r\n", &[], End::Waiting),
        case("*11\r\n", &[], STRANGE_COUNT),
        case("*2147483648\r\n", &[], INVALID_COUNT),
        case("*1\r\n$16384\r\n", &[], End::Waiting),
        case("*1\r\n$16385\r\n", &[], STRANGE_BULK),
        case("*1\r\n$536870913\r\n", &[], INVALID_BULK),
    ];
    for case in &mut cases {
        case.client = Client::Stranger;
    }
    cases
}

fn small_bulks() -> Vec<Case> {
    let mut cases = vec![case("*1\r\n$1048576\r\n", &[], End::Waiting), case("*1\r\n$1048577\r\n", &[], INVALID_BULK)];
    for case in &mut cases {
        case.client = Client::SmallBulks;
    }
    cases
}
