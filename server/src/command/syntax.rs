//! The argument syntax of the rows, read into the tree of arguments that `COMMAND DOCS` answers.
//!
//! The notation is the one of Redis' documentation: a word in capitals is a token, any other word an argument, `[…]` is optional, `<…>`
//! a group, `|` stands between alternatives. `x [x …]` and `[… …]` repeat.

/// One argument, or a group of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The word that announces it.
    pub(super) token: Option<&'static str>,
    pub(super) optional: bool,
    pub(super) multiple: bool,
    /// Whether every repetition is announced again.
    pub(super) multiple_token: bool,
    /// Of a group, its parts.
    pub(super) parts: Vec<Argument>,
}

/// What an argument is (Redis' argument types).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

/// A piece of syntax before its meaning is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Word(&'static str),
    /// `[…]`, and whether it ends in dots.
    Optional {
        alternatives: Vec<Vec<Node>>,
        repeats: bool,
    },
    /// `<…>`.
    Group(Vec<Vec<Node>>),
    /// Once or more.
    Repeat(Vec<Node>),
}

const DOTS: &str = "...";

/// Reads a row's syntax.
pub(super) fn arguments(syntax: &'static str) -> Vec<Argument> {
    let alternatives = read(&mut words(syntax).into_iter(), "");
    match &alternatives[..] {
        [sequence] => convert(sequence),
        alternatives => vec![one_of(alternatives)],
    }
}

/// Brackets and bars by themselves, everything else between blanks.
fn words(syntax: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for chunk in syntax.split_whitespace() {
        let mut rest = chunk;
        while let Some(at) = rest.find(['[', ']', '<', '>', '|']) {
            words.extend([&rest[..at], &rest[at..=at]].into_iter().filter(|word| !word.is_empty()));
            rest = &rest[at + 1..];
        }
        words.extend(Some(rest).filter(|word| !word.is_empty()));
    }
    words
}

/// Reads up to the bracket that closes: alternatives, each a sequence.
fn read(words: &mut std::vec::IntoIter<&'static str>, closing: &str) -> Vec<Vec<Node>> {
    let mut alternatives = Vec::new();
    let mut sequence = Vec::new();
    while let Some(word) = words.next() {
        match word {
            end if end == closing => break,
            "[" => push_optional(&mut sequence, read(words, "]")),
            "<" => sequence.push(Node::Group(read(words, ">"))),
            "|" => alternatives.push(std::mem::take(&mut sequence)),
            DOTS if closing != "]" => {
                let repeated = sequence.pop().into_iter().collect();
                sequence.push(Node::Repeat(repeated));
            }
            word => sequence.push(Node::Word(word)),
        }
    }
    alternatives.push(sequence);
    alternatives
}

/// Adds `[…]`; when it repeats what stands before it, the two become one.
fn push_optional(sequence: &mut Vec<Node>, mut alternatives: Vec<Vec<Node>>) {
    let dots = Node::Word(DOTS);
    let repeats = alternatives.last().is_some_and(|last| last.last() == Some(&dots));
    if let Some(last) = alternatives.last_mut().filter(|_| repeats) {
        last.pop();
    }
    match &alternatives[..] {
        [again] if repeats && sequence.ends_with(again) => {
            let repeated = sequence.split_off(sequence.len() - again.len());
            sequence.push(Node::Repeat(repeated));
        }
        _ => sequence.push(Node::Optional { alternatives, repeats }),
    }
}

/// The arguments of a sequence. A token takes the arguments that follow it, up to the next token or bracket.
fn convert(sequence: &[Node]) -> Vec<Argument> {
    let mut arguments = Vec::new();
    let mut rest = sequence;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            Node::Word(token) if is_token(token) => {
                let taken = rest.iter().take_while(|node| is_operand(node)).count();
                let (operands, after) = rest.split_at(taken);
                rest = after;
                arguments.push(announced(token, convert(operands)));
            }
            node => arguments.push(convert_one(node)),
        }
    }
    arguments
}

fn convert_one(node: &Node) -> Argument {
    match node {
        Node::Word(name) => Argument::new(name, kind_of(name)),
        Node::Group(alternatives) => one_of(alternatives),
        Node::Optional { alternatives, repeats } => {
            let inner = one_of(alternatives);
            Argument { optional: true, multiple: inner.multiple || *repeats, ..inner }
        }
        Node::Repeat(sequence) => {
            let inner = together(convert(sequence));
            Argument { multiple: true, multiple_token: inner.token.is_some(), ..inner }
        }
    }
}

fn is_token(word: &str) -> bool {
    word.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'))
}

fn is_operand(node: &Node) -> bool {
    match node {
        Node::Word(word) => !is_token(word),
        Node::Repeat(sequence) => sequence.iter().all(is_operand),
        Node::Group(_) => true,
        Node::Optional { .. } => false,
    }
}

/// A token with what it announces.
fn announced(token: &'static str, operands: Vec<Argument>) -> Argument {
    match operands.is_empty() {
        true => Argument { token: Some(token), ..Argument::new(&token.to_lowercase(), Kind::PureToken) },
        false => {
            let inner = together(operands);
            let is_group = matches!(inner.kind, Kind::OneOf | Kind::Block);
            let name = if is_group { token.to_lowercase() } else { inner.name.clone() };
            Argument { name, token: Some(token), ..inner }
        }
    }
}

/// One argument for a sequence.
fn together(mut sequence: Vec<Argument>) -> Argument {
    match sequence.len() {
        1 => sequence.remove(0),
        _ => Argument::group(Kind::Block, "-", sequence),
    }
}

/// One argument for alternatives.
fn one_of(alternatives: &[Vec<Node>]) -> Argument {
    let mut parts: Vec<_> = alternatives.iter().map(|sequence| together(convert(sequence))).collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => Argument::group(Kind::OneOf, "-or-", parts),
    }
}

impl Argument {
    fn new(name: &str, kind: Kind) -> Argument {
        Argument {
            name: name.to_owned(),
            kind,
            token: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            parts: Vec::new(),
        }
    }

    fn group(kind: Kind, between: &str, parts: Vec<Argument>) -> Argument {
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(between);
        Argument { parts, ..Argument::new(&name, kind) }
    }
}

/// The notation tells names and not kinds, but the names are well chosen.
fn kind_of(name: &str) -> Kind {
    match name {
        "key" | "key1" | "key2" | "newkey" | "destkey" | "destination" | "source" => Kind::Key,
        "pattern" => Kind::Pattern,
        "unix-time-seconds" | "unix-time-milliseconds" => Kind::UnixTime,
        "bit" | "client-id" | "count" | "cursor" | "db" | "decrement" | "destination-db" | "end" | "index"
        | "index1" | "index2" | "increment" | "milliseconds" | "min-match-len" | "numkeys" | "offset" | "protover"
        | "seconds" | "start" | "timeout" => Kind::Integer,
        "float" => Kind::Double,
        _ => Kind::String,
    }
}

impl Kind {
    /// Redis' word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Table;
    use super::*;

    /// A short form: `?` optional, `*` multiple, `+` token repeated.
    fn sketch(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = String::new();
            if let Some(token) = argument.token {
                text += &format!("{token}:");
            }
            text += argument.kind.as_str();
            if !argument.parts.is_empty() {
                text += &format!("({})", sketch(&argument.parts));
            }
            text += if argument.optional { "?" } else { "" };
            text += if argument.multiple { "*" } else { "" };
            text += if argument.multiple_token { "+" } else { "" };
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn syntax_becomes_a_tree() {
        for (syntax, tree) in [
            ("", ""),
            ("key", "key"),
            ("key [key ...]", "key*"),
            ("key field value [field value ...]", "key block(string string)*"),
            ("key seconds [NX | XX]", "key integer oneof(NX:pure-token XX:pure-token)?"),
            ("key [EX seconds | PERSIST]", "key oneof(EX:integer PERSIST:pure-token)?"),
            ("<ON | OFF>", "oneof(ON:pure-token OFF:pure-token)"),
            ("cursor [MATCH pattern] [COUNT count]", "integer MATCH:pattern? COUNT:integer?"),
            ("[TYPE <A | B>]", "TYPE:oneof(A:pure-token B:pure-token)?"),
            ("[ID client-id [client-id ...]]", "ID:integer*?"),
            ("[LIMIT offset count]", "LIMIT:block(integer integer)?"),
            ("key [GET a b [GET a b ...]]", "key GET:block(string string)?*+"),
            ("[section [section ...]]", "string?*"),
            (
                "[GET a | [BY <C | D>] <SET a> ...]",
                "oneof(GET:string block(BY:oneof(C:pure-token D:pure-token)? SET:string))?*",
            ),
            ("<address | <ID a | USER b> ...>", "oneof(string oneof(ID:string USER:string)*)"),
        ] {
            assert_eq!(sketch(&arguments(syntax)).replace("*?", "?*"), tree.replace("*?", "?*"), "{syntax}");
        }
    }

    #[test]
    fn every_row_can_be_read() {
        for command in Table::get().all() {
            for argument in arguments(command.spec.syntax) {
                assert!(
                    !argument.name.is_empty() && !argument.name.contains(['[', ']', '<', '>', '|']),
                    "{}",
                    command.full_name
                );
            }
        }
    }
}
