//! Runs case files against a server, and records what the reference server replies.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::cases::{Case, CaseFile, Expected, Request, Step, Written};
use crate::connection::{Connection, Protocol, ReplyError, encode};
use crate::expectation::Expectation;
use crate::reply::Reply;
use crate::server::{Server, Target};
use crate::text;

/// How long an `until>` step asks again.
const UNTIL_DEADLINE: Duration = Duration::from_secs(10);

/// Runs all cases of a file against a fresh server, in both versions of the protocol.
///
/// # Panics
/// When a case fails: the message has each failing step, what was expected and what came.
pub fn run_file(name: &str, target: Target) {
    let file = CaseFile::load(name).unwrap_or_else(|error| panic!("{error}"));
    let server = target.start();
    let mut failures = String::new();
    for (case, protocol) in runs(&file, target) {
        if let Err(failure) = run_case(case, &server, protocol) {
            let _ =
                writeln!(failures, "\n{}:{}: {} ({protocol:?})\n{failure}", file.path.display(), case.line, case.title);
        }
    }
    assert!(failures.is_empty(), "cases failed against {target:?}:\n{failures}");
}

/// The cases that make sense for the target, in each protocol that they make sense in.
fn runs(file: &CaseFile, target: Target) -> impl Iterator<Item = (&Case, Protocol)> {
    let protocols = [Protocol::Resp2, Protocol::Resp3];
    let cases = file.cases.iter().filter(move |case| target == Target::Forebay || case.since.is_none());
    cases.flat_map(move |case| {
        protocols.into_iter().filter(|p| case.protocol.is_none_or(|only| only == *p)).map(move |p| (case, p))
    })
}

fn run_case(case: &Case, server: &Server, protocol: Protocol) -> Result<(), String> {
    let mut conversation = Conversation::start(server, protocol);
    case.steps.iter().try_for_each(|step| conversation.check(step))
}

/// The connections of one run of a case.
struct Conversation<'a> {
    server: &'a Server,
    protocol: Protocol,
    connections: HashMap<String, Talker>,
}

/// A connection and the version that it speaks by now.
struct Talker {
    connection: Connection,
    protocol: Protocol,
}

impl<'a> Conversation<'a> {
    /// Starts with an empty server.
    fn start(server: &'a Server, protocol: Protocol) -> Self {
        server.connect().command("FLUSHALL");
        Self { server, protocol, connections: HashMap::new() }
    }

    fn check(&mut self, step: &Step) -> Result<(), String> {
        match &step.expected {
            Expected::Unwritten => Err(failure(step, "a reply written down (see README.md on recording)", "none is")),
            Expected::Silence => self.send(step).map_err(|error| failure(step, "no failure", &error.to_string())),
            Expected::Closed => self.check_closed(step),
            Expected::Reply { resp2, resp3 } => self.check_reply(step, [resp2, resp3]),
        }
    }

    fn check_closed(&mut self, step: &Step) -> Result<(), String> {
        match self.send(step) {
            Ok(()) | Err(ReplyError::Closed) => {}
            Err(error) => return Err(failure(step, "closed", &error.to_string())),
        }
        match self.talker(&step.connection).connection.read_raw() {
            Err(ReplyError::Closed) => Ok(()),
            Err(error) => Err(failure(step, "closed", &error.to_string())),
            Ok(raw) => Err(failure(step, "closed", &escaped(&raw))),
        }
    }

    fn check_reply(&mut self, step: &Step, [resp2, resp3]: [&Written; 2]) -> Result<(), String> {
        let deadline = Instant::now() + UNTIL_DEADLINE;
        loop {
            let asked = self.ask(step);
            let protocol = self.talker(&step.connection).protocol;
            let expected = if protocol == Protocol::Resp2 { resp2 } else { resp3 };
            let raw = asked.map_err(|error| failure(step, &expected.text, &error.to_string()))?;
            if expected.expectation.is_met_by(&Reply::parse(&raw), protocol) {
                return Ok(());
            }
            let may_change = matches!(step.request, Request::Until(_)) && Instant::now() < deadline;
            if !may_change {
                return Err(failure(step, &expected.text, &escaped(&raw)));
            }
        }
    }

    fn ask(&mut self, step: &Step) -> Result<Vec<u8>, ReplyError> {
        self.send(step)?;
        let talker = self.talker(&step.connection);
        let raw = talker.connection.read_raw()?;
        talker.protocol = protocol_after(&step.request, &raw, talker.protocol);
        Ok(raw)
    }

    fn send(&mut self, step: &Step) -> Result<(), ReplyError> {
        let connection = &mut self.talker(&step.connection).connection;
        match &step.request {
            Request::Command(args) | Request::Until(args) => connection.send(&encode(args)),
            Request::Raw(bytes) => connection.send(bytes),
        }
    }

    fn talker(&mut self, name: &str) -> &mut Talker {
        let (server, protocol) = (self.server, self.protocol);
        self.connections.entry(name.to_owned()).or_insert_with(|| {
            let mut connection = server.connect();
            if protocol == Protocol::Resp3 {
                connection.speak(protocol);
            }
            Talker { connection, protocol }
        })
    }
}

/// HELLO answers in the version that it switches to, with a map in RESP3; RESET goes back to RESP2.
fn protocol_after(request: &Request, raw: &[u8], before: Protocol) -> Protocol {
    let Request::Command(args) = request else {
        return before;
    };
    let is_called = |name: &[u8]| args.first().is_some_and(|arg| arg.eq_ignore_ascii_case(name));
    match raw.first() {
        Some(b'%') if is_called(b"HELLO") => Protocol::Resp3,
        Some(b'*') if is_called(b"HELLO") => Protocol::Resp2,
        Some(b'+') if is_called(b"RESET") => Protocol::Resp2,
        _ => before,
    }
}

fn failure(step: &Step, expected: &str, got: &str) -> String {
    format!("  line {}: {}\n    expected: {expected}\n    got:      {got}", step.line, step.text)
}

fn escaped(raw: &[u8]) -> String {
    format!("{}   raw \"{}\"", Reply::parse(raw), text::escape(raw))
}

/// Writes redis-server's reply below every step of the file that has none yet.
///
/// # Panics
/// When the server does not answer a step.
pub fn record_file(name: &str) {
    let file = CaseFile::load(name).unwrap_or_else(|error| panic!("{error}"));
    let server = Target::Redis.start();
    let mut written: HashMap<usize, String> = HashMap::new();
    for case in file.cases.iter().filter(|case| case.since.is_none()) {
        written.extend(record_case(case, &server));
    }
    let text = fs::read_to_string(&file.path).expect("the file was read before");
    fs::write(&file.path, with_replies(&text, &written)).expect("the file is written");
}

/// The replies to a case's steps that have none yet, by line.
fn record_case(case: &Case, server: &Server) -> Vec<(usize, String)> {
    let replies = |protocol| {
        let mut conversation = Conversation::start(server, protocol);
        let record = |step: &Step| conversation.record(step);
        case.steps.iter().map(record).collect::<Vec<_>>()
    };
    let first = replies(case.protocol.unwrap_or(Protocol::Resp2));
    // A case for one version would only confuse the other.
    let resp3 = if case.protocol.is_some() { Vec::new() } else { replies(Protocol::Resp3) };
    let unwritten = case.steps.iter().enumerate().filter(|(_, step)| matches!(step.expected, Expected::Unwritten));
    unwritten.map(|(n, step)| (step.line, notation(&first[n], resp3.get(n)))).collect()
}

impl Conversation<'_> {
    fn record(&mut self, step: &Step) -> Option<Reply> {
        if !matches!(step.expected, Expected::Unwritten) {
            // What is written already is checked when the file is run.
            let _ = self.check(step);
            return None;
        }
        match self.ask(step) {
            Ok(raw) => Some(Reply::parse(&raw)),
            Err(ReplyError::Closed) => None,
            Err(error) => panic!("line {}: {}: {error}", step.line, step.text),
        }
    }
}

/// The shortest notation that both replies meet; two lines where there is none.
fn notation(resp2: &Option<Reply>, resp3: Option<&Option<Reply>>) -> String {
    let Some(resp2) = resp2 else {
        return "closed".to_owned();
    };
    let Some(Some(resp3)) = resp3 else {
        return resp2.to_string();
    };
    let meets_both = |text: &String| {
        Expectation::parse(text).is_ok_and(|expectation| {
            expectation.is_met_by(resp2, Protocol::Resp2) && expectation.is_met_by(resp3, Protocol::Resp3)
        })
    };
    [resp3.to_string(), resp2.to_string()]
        .into_iter()
        .find(meets_both)
        .unwrap_or_else(|| format!("resp2 {resp2}\nresp3 {resp3}"))
}

fn with_replies(text: &str, written: &HashMap<usize, String>) -> String {
    let mut filled = String::with_capacity(text.len() * 2);
    for (index, line) in text.lines().enumerate() {
        let _ = writeln!(filled, "{line}");
        if let Some(reply) = written.get(&(index + 1)) {
            let _ = writeln!(filled, "{reply}");
        }
    }
    filled
}
