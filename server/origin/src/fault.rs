//! A fault of a configuration: where it is, what is wrong, what to do about it.

use std::fmt;

/// One thing that is wrong with a configuration.
///
/// Faults are collected, never thrown one at a time, so that whoever writes a configuration sees all of them at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file as it was named; empty when the fault is in no file (a flag, for instance).
    pub file: String,
    /// Line, from 1; 0 when there is no file.
    pub line: usize,
    /// Column in characters, from 1; 0 when there is no file.
    pub column: usize,
    /// The setting, such as `group "product".ttl` or `origin`.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it; empty when the problem says it all.
    pub hint: String,
}

impl Fault {
    /// A fault of a setting that stands in no file.
    pub fn unplaced(place: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Fault {
            file: String::new(),
            line: 0,
            column: 0,
            place: place.into(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

impl Fault {
    /// As text, where it hinders nothing.
    pub fn as_warning(&self) -> String {
        self.told_as("warning")
    }

    fn told_as(&self, what: &str) -> String {
        let place = match self.file.is_empty() {
            true => String::new(),
            false => format!("{}:{}:{}: ", self.file, self.line, self.column),
        };
        let hint = if self.hint.is_empty() { String::new() } else { format!("\n  hint: {}", self.hint) };
        format!("{place}{what}: {}: {}{hint}", self.place, self.problem)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.told_as("error"))
    }
}

impl std::error::Error for Fault {}

/// The known word that `wrong` was most likely meant to be, if any is near enough.
pub fn nearest<'w>(wrong: &str, known: &[&'w str]) -> Option<&'w str> {
    let tolerance = (wrong.chars().count() / 3).max(1);
    known
        .iter()
        .map(|word| (edit_distance(wrong, word), *word))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance, in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let known = ["ttl", "ttl_jitter", "absent_ttl", "load"];
        assert_eq!(nearest("tll", &known), Some("ttl"));
        assert_eq!(nearest("absentttl", &known), Some("absent_ttl"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn edit_distance_is_levenshteins() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn a_fault_reads_like_a_compilers() {
        let fault = Fault {
            file: "groups.toml".into(),
            line: 3,
            column: 8,
            place: "group \"product\".ttl".into(),
            problem: "`10 parsecs` is no length of time".into(),
            hint: "write a number and a unit, such as \"10m\"".into(),
        };
        assert_eq!(
            fault.to_string(),
            "groups.toml:3:8: error: group \"product\".ttl: `10 parsecs` is no length of time\n  \
             hint: write a number and a unit, such as \"10m\""
        );
    }
}
