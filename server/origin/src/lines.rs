//! Places in a text file, for faults.

use std::ops::Range;

use crate::fault::Fault;

/// Where something stands in a text, in bytes.
pub type Span = Range<usize>;

/// A text and the name of its file: turns spans into lines and columns.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'t> {
    text: &'t str,
    file: &'t str,
}

impl<'t> Lines<'t> {
    /// `file` is only how faults name the text.
    pub fn new(text: &'t str, file: &'t str) -> Self {
        Lines { text, file }
    }

    /// The name of the file.
    pub fn file(&self) -> &'t str {
        self.file
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub fn place_of(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// A fault of the setting `place`, which stands at `at`.
    pub fn fault(
        &self,
        at: Span,
        place: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Fault {
        let (line, column) = self.place_of(at.start);
        Fault {
            file: self.file.to_owned(),
            line,
            column,
            place: place.into(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_both_count_from_one() {
        let lines = Lines::new("ab\nü = 1\n", "f.toml");
        assert_eq!(lines.place_of(0), (1, 1));
        assert_eq!(lines.place_of(3), (2, 1));
        assert_eq!(lines.place_of("ab\nü = ".len()), (2, 5));
    }
}
