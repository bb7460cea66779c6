//! Random conversations, held with two servers side by side: every reply must be the same, and so
//! must everything that is stored in the end.
//!
//! Keys are few, so that commands meet; values are the tricky ones: the edges of 64 bits, numbers in
//! unusual spellings, empty, binary and long. Commands whose replies are random (RANDOMKEY,
//! HRANDFIELD) or tell of the server itself are left out.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::connection::{Connection, Protocol};
use crate::reply::Reply;
use crate::text;

/// How many commands one conversation has; the servers are emptied after each.
const CONVERSATION: usize = 150;

/// The two servers may look at their clocks this far apart, in milliseconds.
const CLOCK_SLACK_MS: i64 = 2_000;

/// A command with its arguments.
pub type Command = Vec<Vec<u8>>;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// How many commands are sent to each server, all in all.
    pub commands: usize,
    /// When to stop even if there are commands left.
    pub limit: Duration,
}

/// The shortest conversation found that the servers answer differently.
#[derive(Debug)]
pub struct Difference {
    pub seed: u64,
    pub protocol: Protocol,
    pub conversation: Vec<Command>,
    /// What was asked when the servers disagreed.
    pub question: String,
    pub expected: Reply,
    pub found: Reply,
}

/// Holds random conversations with both servers until the plan is done or they disagree.
///
/// # Panics
/// When a server does not answer.
pub fn compare(plan: Plan, pair: &mut Pair) -> Result<usize, Box<Difference>> {
    let started = Instant::now();
    let mut sent = 0;
    for seed in plan.seed.. {
        if sent >= plan.commands || started.elapsed() > plan.limit {
            break;
        }
        let mut random = StdRng::seed_from_u64(seed);
        pair.speak(if random.random() { Protocol::Resp3 } else { Protocol::Resp2 });
        let conversation: Vec<Command> = (0..CONVERSATION).map(|_| command(&mut random)).collect();
        sent += conversation.len();
        if pair.disagree(&conversation).is_some() {
            return Err(Box::new(shortest(seed, conversation, pair)));
        }
    }
    Ok(sent)
}

/// Leaves out commands, ever smaller runs of them, as long as the servers still disagree.
fn shortest(seed: u64, mut conversation: Vec<Command>, pair: &mut Pair) -> Difference {
    let mut run = conversation.len() / 2;
    while run > 0 {
        let mut start = 0;
        while start < conversation.len() {
            let mut shorter = conversation.clone();
            shorter.drain(start..(start + run).min(shorter.len()));
            if pair.disagree(&shorter).is_some() {
                conversation = shorter;
            } else {
                start += run;
            }
        }
        run /= 2;
    }
    let Disagreement { question, expected, found } =
        pair.disagree(&conversation).expect("the servers disagreed over this conversation before");
    Difference { seed, protocol: pair.protocol, conversation, question, expected, found }
}

/// The two servers.
pub struct Pair {
    /// The reference.
    pub redis: Connection,
    /// The server under test.
    pub forebay: Connection,
    protocol: Protocol,
}

struct Disagreement {
    question: String,
    expected: Reply,
    found: Reply,
}

impl Pair {
    /// Takes a connection to each.
    pub fn new(redis: Connection, forebay: Connection) -> Self {
        Self { redis, forebay, protocol: Protocol::Resp2 }
    }

    fn speak(&mut self, protocol: Protocol) {
        self.redis.speak(protocol);
        self.forebay.speak(protocol);
        self.protocol = protocol;
    }

    /// Holds the conversation with two empty servers; the first thing that they disagree about.
    fn disagree(&mut self, conversation: &[Command]) -> Option<Disagreement> {
        for clean in ["FLUSHALL", "SELECT 0"] {
            self.redis.command(clean);
            self.forebay.command(clean);
        }
        conversation.iter().find_map(|command| self.disagree_on(command)).or_else(|| self.disagree_on_contents())
    }

    fn disagree_on(&mut self, command: &Command) -> Option<Disagreement> {
        let expected = ask(&mut self.redis, command);
        let found = ask(&mut self.forebay, command);
        if expected == found || self.is_same_but_for_order_or_time(command, &expected, &found) {
            return None;
        }
        Some(Disagreement { question: text::command_line(command), expected, found })
    }

    fn is_same_but_for_order_or_time(&mut self, command: &Command, expected: &Reply, found: &Reply) -> bool {
        match Freedom::of(&command[0]) {
            Freedom::None => false,
            Freedom::Clock => is_close(expected, found),
            Freedom::Order => sorted(expected) == sorted(found),
            // A small hash keeps the order of insertion, a large one has none.
            Freedom::OrderOfLargeHash => {
                let encoding = self.redis.command(&format!("OBJECT ENCODING {}", text::quote(&command[1])));
                encoding.text() == Some(b"hashtable") && sorted(expected) == sorted(found)
            }
        }
    }

    /// Compares type, value, encoding and deadline of every key of every database in use.
    fn disagree_on_contents(&mut self) -> Option<Disagreement> {
        DATABASES.iter().find_map(|database| {
            self.disagree_on(&line(&["SELECT", database]))
                .or_else(|| self.disagree_on(&line(&["KEYS", "*"])))
                .or_else(|| KEYS.iter().find_map(|key| self.disagree_on_key(key)))
        })
    }

    fn disagree_on_key(&mut self, key: &str) -> Option<Disagreement> {
        let questions = [
            line(&["TYPE", key]),
            line(&["GET", key]),
            line(&["HGETALL", key]),
            line(&["OBJECT", "ENCODING", key]),
            line(&["PEXPIRETIME", key]),
        ];
        questions.iter().find_map(|question| self.disagree_on(question))
    }
}

/// In what two right replies to a command may differ.
enum Freedom {
    None,
    /// Both tell a time.
    Clock,
    Order,
    OrderOfLargeHash,
}

impl Freedom {
    fn of(name: &[u8]) -> Self {
        match name {
            b"TTL" | b"PTTL" | b"EXPIRETIME" | b"PEXPIRETIME" => Self::Clock,
            b"KEYS" | b"SCAN" => Self::Order,
            b"HGETALL" | b"HKEYS" | b"HVALS" | b"HSCAN" => Self::OrderOfLargeHash,
            _ => Self::None,
        }
    }
}

/// -1 and -2 are answers of another kind than a time.
fn is_close(expected: &Reply, found: &Reply) -> bool {
    match (expected, found) {
        (Reply::Integer(a), Reply::Integer(b)) => *a >= 0 && *b >= 0 && a.abs_diff(*b) <= CLOCK_SLACK_MS.unsigned_abs(),
        _ => false,
    }
}

/// A reply without its order; the pairs of a flat map stay together.
fn sorted(reply: &Reply) -> Vec<String> {
    let mut parts: Vec<String> = match reply {
        Reply::Map(pairs) => pairs.iter().map(|(key, value)| format!("{key}: {value}")).collect(),
        Reply::Array(items) => items
            .iter()
            .flat_map(|item| match item {
                Reply::Array(inner) => inner.iter().map(Reply::to_string).collect(),
                other => vec![other.to_string()],
            })
            .collect(),
        other => vec![other.to_string()],
    };
    parts.sort();
    parts
}

fn ask(connection: &mut Connection, command: &Command) -> Reply {
    let raw = connection.call(command).unwrap_or_else(|error| panic!("{}: {error}", text::command_line(command)));
    Reply::parse(&raw)
}

// ---- the generator ------------------------------------------------------------------------------

const KEYS: [&str; 5] = ["a", "b", "c", "h", "i"];
const FIELDS: [&str; 5] = ["f", "g", "7", "", "a field"];
const DATABASES: [&str; 2] = ["0", "1"];

const INTEGERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "8",
    "10",
    "15",
    "16",
    "31",
    "63",
    "64",
    "100",
    "-5",
    "-100",
    "255",
    "256",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
    "4611686018427387904",
    "2147483648",
];

/// What is nearly an integer, or no integer at all.
const ODD_NUMBERS: [&str; 16] = [
    "",
    " 1",
    "1 ",
    "01",
    "+1",
    "-0",
    "1.5",
    "abc",
    "9223372036854775808",
    "-9223372036854775809",
    "1e3",
    "0x10",
    "nan",
    "inf",
    "99999999999999999999",
    "0.1",
];

/// No time to live that could end while the servers are compared.
const ODD_TIMES: [&str; 10] =
    ["0", "-1", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "", "abc", "1.5", " 1", "+1"];

const FLOATS: [&str; 12] =
    ["0", "0.1", "0.2", "-1.5", "3.0e3", "1e-7", "1e15", "123456789.123456789", "-0.0", "5e-1", "17179869184", "1e300"];

/// The shapes of commands. A word in capitals that names a kind of argument is replaced by one:
/// K key, F field, V value, I integer, N number of any kind, L float, O offset in a string,
/// B bit, X no offset of a bit, T time to live in seconds, M the same in milliseconds, A deadline,
/// Z time that is none or long past, D database, P pattern, C cursor of a start, or none: where others lead is each server's own.
const SHAPES: &str = "
SET K V|SET K V NX|SET K V XX|SET K V GET|SET K V NX GET|SET K V XX GET|SET K V EX T|SET K V PX M|SET K V KEEPTTL
SET K V EXAT 33177117420|SET K V PXAT 33177117420123|SET K V EX Z|SET K V NX XX|SET K V EX T KEEPTTL|SET K V NOSUCH
SETNX K V|SETEX K T V|PSETEX K M V|SETEX K Z V|GET K|GET K|GETSET K V|GETDEL K|GETEX K|GETEX K EX T|GETEX K PERSIST
GETEX K PXAT 33177117420123|GETEX K EX Z|MGET K K K|MSET K V K V|MSETNX K V K V|MSET K V K|APPEND K V|APPEND K V|STRLEN K
SETRANGE K O V|GETRANGE K I I|GETRANGE K N I|SUBSTR K I I|SETRANGE K N V
INCR K|DECR K|INCRBY K I|DECRBY K I|INCRBY K N|DECRBY K N|INCRBYFLOAT K L|INCRBYFLOAT K N|INCR K|DECR K
LCS K K|LCS K K LEN|LCS K K IDX|LCS K K IDX MINMATCHLEN I WITHMATCHLEN
SETBIT K O B|SETBIT K X B|GETBIT K O|GETBIT K N|BITCOUNT K|BITCOUNT K I I|BITCOUNT K I I BIT|BITCOUNT K I I BYTE
BITPOS K B|BITPOS K B I|BITPOS K B I I|BITPOS K B I I BIT|BITPOS K I
BITOP AND K K K|BITOP OR K K K|BITOP XOR K K K|BITOP NOT K K|BITOP NOT K K K
BITFIELD K GET U O|BITFIELD K SET U O I|BITFIELD K INCRBY U O I|BITFIELD K OVERFLOW SAT INCRBY U O I
BITFIELD K OVERFLOW FAIL INCRBY U O I SET U O I|BITFIELD K GET U N|BITFIELD_RO K GET U O GET U O|BITFIELD_RO K SET U O I
HSET K F V|HSET K F V|HSET K F V F V|HSET K F V F|HSETNX K F V|HMSET K F V F V|HGET K F|HMGET K F F|HDEL K F|HDEL K F F
HLEN K|HSTRLEN K F|HEXISTS K F|HGETALL K|HKEYS K|HVALS K|HINCRBY K F I|HINCRBY K F N|HINCRBYFLOAT K F L|HINCRBYFLOAT K F N
HSCAN K 0 COUNT 1000|HSCAN K 0 MATCH P COUNT 1000|HSCAN K C
DEL K|DEL K K|UNLINK K|EXISTS K K|TOUCH K K|TYPE K|RENAME K K|RENAMENX K K|COPY K K|COPY K K REPLACE|COPY K K DB D REPLACE
MOVE K D|KEYS P|SCAN 0 COUNT 1000|SCAN 0 COUNT 1000 MATCH P|SCAN 0 COUNT 1000 TYPE hash|DBSIZE|SELECT D|SELECT N
SWAPDB D D|OBJECT ENCODING K|OBJECT ENCODING K|EXPIRE K T|PEXPIRE K M|EXPIREAT K 33177117420|PEXPIREAT K A
EXPIRE K T NX|EXPIRE K T XX|PEXPIREAT K A GT|PEXPIREAT K A LT|EXPIRE K T NX GT|EXPIRE K Z|PEXPIRE K Z|EXPIREAT K Z
TTL K|PTTL K|EXPIRETIME K|PEXPIRETIME K|PERSIST K|PERSIST K
PING|PING V|ECHO V|NOSUCH V|GET K K|HGET K|SETEX K T|FLUSHDB";

/// A random command.
fn command(random: &mut StdRng) -> Command {
    let shapes: Vec<&str> = SHAPES.split(['|', '\n']).filter(|shape| !shape.is_empty()).collect();
    let shape = shapes.choose(random).expect("there are shapes");
    shape.split(' ').map(|word| argument(word, random)).collect()
}

fn argument(word: &str, random: &mut StdRng) -> Vec<u8> {
    match word {
        "K" => pick(&KEYS, random),
        "F" => pick(&FIELDS, random),
        "I" => pick(&INTEGERS, random),
        "N" => {
            if random.random() {
                pick(&INTEGERS, random)
            } else {
                pick(&ODD_NUMBERS, random)
            }
        }
        "L" => pick(&FLOATS, random),
        "O" => pick(&["0", "1", "7", "8", "20", "100", "1000", "#3"], random),
        "B" => pick(&["0", "1", "1", "0", "2"], random),
        "U" => pick(&["u1", "u8", "i8", "i5", "u16", "i64", "u63", "i32", "u64", "x8"], random),
        "C" => pick(&["0", "", "-0", "+0", "00", "abc", " 0", "0 ", "1.5", "0x10", "99999999999999999999"], random),
        "T" => pick(&["100", "1000", "100000"], random),
        "M" => pick(&["100000", "1000000"], random),
        "A" => pick(&["33177117420123", "33177117420124", "33177117420999"], random),
        "X" => pick(&["-1", "", "abc", "4294967296", "9223372036854775807", "1.5"], random),
        "Z" => pick(&ODD_TIMES, random),
        "D" => pick(&DATABASES, random),
        "P" => pick(&["*", "a*", "?", "[a-h]", "[^a]", "nosuch*", "\\a", "*f*"], random),
        "V" => value(random),
        word => word.as_bytes().to_vec(),
    }
}

fn value(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..8) {
        0 | 1 => pick(&INTEGERS, random),
        2 => pick(&ODD_NUMBERS, random),
        3 => pick(&FLOATS, random),
        // Around the lengths at which encodings change.
        4 => vec![b'x'; *[43, 44, 45, 63, 64, 65, 200].choose(random).expect("lengths")],
        5 => binary(random),
        _ => pick(&["", "abc", "hello world", "foobar", "\r\n"], random),
    }
}

fn binary(random: &mut StdRng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).step_by(51).chain([0, 13, 10]).collect();
    bytes.shuffle(random);
    bytes
}

fn pick(words: &[&str], random: &mut StdRng) -> Vec<u8> {
    words.choose(random).expect("there are words").as_bytes().to_vec()
}

fn line(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "the servers disagree (seed {}, {:?}); the shortest conversation found:",
            self.seed, self.protocol
        )?;
        for command in &self.conversation {
            writeln!(f, "  > {}", text::command_line(command))?;
        }
        writeln!(f, "asked: {}\n  expected: {}\n  got:      {}", self.question, self.expected, self.found)
    }
}
