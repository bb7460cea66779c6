//! The kinds of values that parameters take, and what is wrong with a text that is none.

use crate::size::parse_size;

/// A kind of value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `yes` or `no`.
    Switch,
    Integer {
        least: i64,
        most: i64,
    },
    /// Bytes, with a unit or without.
    Size {
        least: u64,
        most: u64,
    },
    /// Bytes, or a share of `maxmemory` as in `5%`.
    SizeOrShare,
    /// One of these words.
    Word(&'static [&'static str]),
    Text,
    /// Whatever this function finds right. It answers the text as `CONFIG GET` has it.
    Checked(fn(&str) -> Result<String, Refusal>),
}

/// A value of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Switch(bool),
    Integer(i64),
    Size(u64),
    Text(String),
}

/// Why a value is not taken. The words are Redis' where Redis refuses the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    NotYesOrNo,
    NotAnInteger,
    NotASize,
    NotASizeOrShare,
    ShareAbove(u64),
    Outside {
        least: String,
        most: String,
    },
    NotOneOf(&'static [&'static str]),
    /// Wrong for a reason of its own.
    Because(&'static str),
}

impl Kind {
    /// Reads a value.
    pub(super) fn parse(self, text: &str) -> Result<Value, Refusal> {
        match self {
            Kind::Switch => parse_switch(text).map(Value::Switch),
            Kind::Integer { least, most } => {
                let number = forebay_store::parse_integer(text.as_bytes()).ok_or(Refusal::NotAnInteger)?;
                within(number, least, most).map(Value::Integer)
            }
            Kind::Size { least, most } => {
                let bytes = parse_size(text).ok_or(Refusal::NotASize)?;
                within(bytes, least, most).map(Value::Size)
            }
            Kind::SizeOrShare => parse_size_or_share(text).map(Value::Text),
            Kind::Word(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .map(|word| Value::Text((*word).to_owned()))
                .ok_or(Refusal::NotOneOf(words)),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Checked(check) => check(text).map(Value::Text),
        }
    }
}

fn parse_switch(text: &str) -> Result<bool, Refusal> {
    match text {
        yes if yes.eq_ignore_ascii_case("yes") => Ok(true),
        no if no.eq_ignore_ascii_case("no") => Ok(false),
        _ => Err(Refusal::NotYesOrNo),
    }
}

fn parse_size_or_share(text: &str) -> Result<String, Refusal> {
    match text.strip_suffix('%') {
        None => parse_size(text).map(|bytes| bytes.to_string()).ok_or(Refusal::NotASizeOrShare),
        Some(share) => match share.parse::<u64>() {
            Ok(0..=100) => Ok(text.to_owned()),
            Ok(_) => Err(Refusal::ShareAbove(100)),
            Err(_) => Err(Refusal::NotASizeOrShare),
        },
    }
}

fn within<T: PartialOrd + ToString>(number: T, least: T, most: T) -> Result<T, Refusal> {
    match number >= least && number <= most {
        true => Ok(number),
        false => Err(Refusal::Outside { least: least.to_string(), most: most.to_string() }),
    }
}

/// As `CONFIG GET` tells it.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Switch(true) => f.write_str("yes"),
            Value::Switch(false) => f.write_str("no"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Size(bytes) => write!(f, "{bytes}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NotYesOrNo => f.write_str("argument must be 'yes' or 'no'"),
            Refusal::NotAnInteger => f.write_str("argument couldn't be parsed into an integer"),
            Refusal::NotASize => f.write_str("argument must be a memory value"),
            Refusal::NotASizeOrShare => f.write_str("argument must be a memory or percent value"),
            Refusal::ShareAbove(most) => write!(f, "percentage argument must be less or equal to {most}"),
            Refusal::Outside { least, most } => write!(f, "argument must be between {least} and {most} inclusive"),
            Refusal::NotOneOf(words) => write!(f, "argument(s) must be one of the following: {}", words.join(", ")),
            Refusal::Because(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: Kind = Kind::Integer { least: 0, most: 100 };

    fn refusal(kind: Kind, text: &str) -> String {
        kind.parse(text).expect_err(text).to_string()
    }

    #[test]
    fn values_are_told_in_their_plain_form() {
        let size = Kind::Size { least: 0, most: u64::MAX };
        for (kind, text, told) in [
            (Kind::Switch, "YES", "yes"),
            (PERCENT, "100", "100"),
            (size, "1kb", "1024"),
            (Kind::SizeOrShare, "1kb", "1024"),
            (Kind::SizeOrShare, "5%", "5%"),
            (Kind::Word(&["one", "two"]), "TWO", "two"),
            (Kind::Text, "As It Is", "As It Is"),
        ] {
            assert_eq!(kind.parse(text).expect(text).to_string(), told);
        }
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        assert_eq!(refusal(PERCENT, "101"), "argument must be between 0 and 100 inclusive");
        assert_eq!(refusal(PERCENT, "+1"), "argument couldn't be parsed into an integer");
        assert_eq!(refusal(Kind::SizeOrShare, "200%"), "percentage argument must be less or equal to 100");
        assert_eq!(refusal(Kind::SizeOrShare, "-1%"), "argument must be a memory or percent value");
        assert_eq!(refusal(Kind::Word(&["a", "b"]), "c"), "argument(s) must be one of the following: a, b");
    }
}
