//! The files under `cases/`: conversations with a server, written down with the replies.

use std::path::{Path, PathBuf};
use std::{error, fmt, fs};

use crate::connection::Protocol;
use crate::expectation::{Expectation, NotationError};
use crate::text;

/// The cases of one file.
#[derive(Debug)]
pub struct CaseFile {
    pub path: PathBuf,
    pub cases: Vec<Case>,
}

/// A conversation that starts with an empty server and new connections.
#[derive(Debug)]
pub struct Case {
    pub title: String,
    /// The line of the title, from 1.
    pub line: usize,
    /// `@since 7.2`: newer than the reference server, which is not asked then.
    pub since: Option<String>,
    /// `@resp 2`: the case makes sense in this version of the protocol only.
    pub protocol: Option<Protocol>,
    pub steps: Vec<Step>,
}

/// Something sent, and what must come back.
#[derive(Debug)]
pub struct Step {
    /// The line of what is sent, from 1.
    pub line: usize,
    /// Which of the case's connections it goes over; most cases have one, named "".
    pub connection: String,
    pub request: Request,
    /// What is sent, as the file has it.
    pub text: String,
    pub expected: Expected,
}

/// What is sent.
#[derive(Debug)]
pub enum Request {
    /// `> SET k v`
    Command(Vec<Vec<u8>>),
    /// `until> GET k`: sent again until the reply is the expected one.
    Until(Vec<Vec<u8>>),
    /// `>> "*1\r\n…"`
    Raw(Vec<u8>),
}

/// What must come back.
#[derive(Debug)]
pub enum Expected {
    /// Nothing is written yet; recording fills it in.
    Unwritten,
    /// `silent`: no reply is read.
    Silence,
    /// `closed`: the server ends the connection.
    Closed,
    /// A reply, the same in both versions or one for each (`resp2 …`, `resp3 …`).
    Reply { resp2: Written, resp3: Written },
}

/// An expectation with the text that it was read from.
#[derive(Clone, Debug)]
pub struct Written {
    pub text: String,
    pub expectation: Expectation,
}

/// A fault in a case file.
#[derive(Debug)]
pub struct CaseError {
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    pub fault: CaseFault,
}

/// What is wrong with a case file.
#[derive(Debug)]
pub enum CaseFault {
    StepBeforeTitle,
    UnknownDirective(String),
    BadCommand(text::LineError),
    BadRaw,
    BadExpectation(NotationError),
    /// `resp2` without `resp3` beside it, or the other way round.
    OneProtocolOnly,
}

impl CaseFile {
    /// Reads the file `cases/<name>.cases`.
    ///
    /// # Panics
    /// When the file cannot be read.
    pub fn load(name: &str) -> Result<Self, CaseError> {
        let path = directory().join(format!("{name}.cases"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CaseError> {
        let at = |line: usize| move |fault| CaseError { path: path.to_owned(), line, fault };
        let mut cases: Vec<Case> = Vec::new();
        for block in Block::cut(text) {
            if let Some(title) = block.head.strip_prefix("== ") {
                cases.push(Case::new(title, block.line));
                continue;
            }
            let case = cases.last_mut().ok_or(CaseFault::StepBeforeTitle).map_err(at(block.line))?;
            if block.head.starts_with('@') {
                case.apply(block.head).map_err(at(block.line))?;
            } else {
                case.steps.push(Step::parse(&block).map_err(at(block.line))?);
            }
        }
        Ok(Self { path: path.to_owned(), cases })
    }
}

/// Where the case files are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

impl Case {
    fn new(title: &str, line: usize) -> Self {
        Self { title: title.to_owned(), line, since: None, protocol: None, steps: Vec::new() }
    }

    fn apply(&mut self, directive: &str) -> Result<(), CaseFault> {
        match directive.split_once(' ') {
            Some(("@since", version)) => self.since = Some(version.trim().to_owned()),
            Some(("@resp", "2")) => self.protocol = Some(Protocol::Resp2),
            Some(("@resp", "3")) => self.protocol = Some(Protocol::Resp3),
            _ => return Err(CaseFault::UnknownDirective(directive.to_owned())),
        }
        Ok(())
    }
}

impl Step {
    fn parse(block: &Block<'_>) -> Result<Self, CaseFault> {
        let (prompt, body) = block.head.split_once('>').expect("a block's head has a prompt");
        let (connection, request) = match body.strip_prefix('>') {
            Some(raw) => (prompt, Request::Raw(raw_bytes(raw.trim())?)),
            None if prompt == "until" => ("", Request::Until(arguments(body)?)),
            None => (prompt, Request::Command(arguments(body)?)),
        };
        Ok(Self {
            line: block.line,
            connection: connection.to_owned(),
            request,
            text: block.head.to_owned(),
            expected: Expected::parse(&block.body)?,
        })
    }
}

impl Expected {
    fn parse(lines: &[&str]) -> Result<Self, CaseFault> {
        match lines {
            [] => Ok(Self::Unwritten),
            ["silent"] => Ok(Self::Silence),
            ["closed"] => Ok(Self::Closed),
            _ => match (lines_after("resp2 ", lines), lines_after("resp3 ", lines)) {
                (Some(resp2), Some(resp3)) => {
                    Ok(Self::Reply { resp2: expectation(&resp2)?, resp3: expectation(&resp3)? })
                }
                (None, None) => {
                    let both = expectation(&lines.join("\n"))?;
                    Ok(Self::Reply { resp2: both.clone(), resp3: both })
                }
                _ => Err(CaseFault::OneProtocolOnly),
            },
        }
    }
}

/// The text that follows `prefix`, up to the next line with a protocol's prefix.
fn lines_after(prefix: &str, lines: &[&str]) -> Option<String> {
    let start = lines.iter().position(|line| line.starts_with(prefix))?;
    let continues = |line: &&&str| !line.starts_with("resp2 ") && !line.starts_with("resp3 ");
    let mut text = lines[start][prefix.len()..].to_owned();
    for line in lines[start + 1..].iter().take_while(continues) {
        text.push('\n');
        text.push_str(line);
    }
    Some(text)
}

fn expectation(text: &str) -> Result<Written, CaseFault> {
    let expectation = Expectation::parse(text).map_err(CaseFault::BadExpectation)?;
    Ok(Written { text: text.to_owned(), expectation })
}

fn arguments(line: &str) -> Result<Vec<Vec<u8>>, CaseFault> {
    text::split_arguments(line).map_err(CaseFault::BadCommand)
}

/// Raw bytes are quoted words, put together without a space.
fn raw_bytes(line: &str) -> Result<Vec<u8>, CaseFault> {
    if !line.starts_with(['"', '\'']) {
        return Err(CaseFault::BadRaw);
    }
    Ok(arguments(line)?.concat())
}

/// A line that opens something, and the lines that belong to it.
struct Block<'a> {
    /// From 1.
    line: usize,
    head: &'a str,
    body: Vec<&'a str>,
}

impl<'a> Block<'a> {
    /// Cuts a file into blocks; comments and empty lines are left out.
    fn cut(text: &'a str) -> Vec<Self> {
        let mut blocks: Vec<Self> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with("# ") || line == "#" {
                continue;
            }
            if opens_a_block(line) {
                blocks.push(Self { line: index + 1, head: line, body: Vec::new() });
            } else if let Some(block) = blocks.last_mut() {
                block.body.push(line);
            }
        }
        blocks
    }
}

/// Titles, directives, and prompts: an optional name of lower-case letters, then `>`.
fn opens_a_block(line: &str) -> bool {
    let after_name = line.trim_start_matches(|c: char| c.is_ascii_lowercase());
    line.starts_with("== ") || line.starts_with('@') || after_name.starts_with("> ") || after_name.starts_with(">> ")
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.fault)
    }
}

impl fmt::Display for CaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepBeforeTitle => f.write_str("a step stands before the first `== title`"),
            Self::UnknownDirective(line) => write!(f, "`{line}` is no directive: use `@since VERSION` or `@resp 2|3`"),
            Self::BadCommand(error) => error.fmt(f),
            Self::BadRaw => f.write_str("raw bytes are written as quoted words: >> \"PING\\r\\n\""),
            Self::BadExpectation(error) => error.fmt(f),
            Self::OneProtocolOnly => f.write_str("`resp2` and `resp3` lines come together"),
        }
    }
}

impl error::Error for CaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CaseFile, CaseError> {
        CaseFile::parse(Path::new("some.cases"), text)
    }

    #[test]
    fn a_file_is_cases_of_steps() {
        let file = parse(
            "# Comment\n== first\n@since 7.2\n> SET k \"v w\"\n+OK\n\nb> GET k\n[\"a\",\n \"b\"]\n\n\
             == second\n@resp 2\n>> \"PI\" \"NG\\r\\n\"\n+PONG\nuntil> PING\n",
        )
        .unwrap();
        let [first, second] = &file.cases[..] else { panic!("two cases") };
        assert_eq!((first.title.as_str(), first.line, first.since.as_deref()), ("first", 2, Some("7.2")));
        assert_eq!((first.steps[1].connection.as_str(), first.steps[1].line), ("b", 7));
        assert_eq!(second.protocol, Some(Protocol::Resp2));
        assert!(matches!(&second.steps[0].request, Request::Raw(bytes) if bytes == b"PING\r\n"));
        assert!(matches!(second.steps[1].expected, Expected::Unwritten));
    }

    #[test]
    fn faults_name_their_place() {
        for (text, message) in [
            ("> PING\n", "some.cases:1: a step stands before"),
            ("== t\n@odd\n", "some.cases:2: `@odd` is no directive"),
            ("== t\n> PING\n?\n", "some.cases:2: the notation does not know"),
            ("== t\n> PING\nresp2 :1\n", "some.cases:2: `resp2` and `resp3`"),
            ("== t\n>> PING\n", "some.cases:2: raw bytes are written"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
