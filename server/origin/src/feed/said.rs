//! What was logged already.

use std::collections::HashSet;
use std::fmt::Display;

/// The most things that are remembered; beyond them nothing is news. Counters go on counting.
const MAX_SAID: usize = 1000;

/// What was logged, so that it is logged once.
#[derive(Debug, Default)]
pub(super) struct Said {
    all: HashSet<String>,
}

impl Said {
    /// Whether `what` is to be logged: it was not yet.
    pub(super) fn is_news(&mut self, about: &str, what: &impl Display) -> bool {
        self.all.len() < MAX_SAID && self.all.insert(format!("{about} {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_news_once_and_at_last_nothing_is() {
        let mut said = Said::default();
        assert!(said.is_news("a", &1) && !said.is_news("a", &1) && said.is_news("b", &1));
        let news = (0..2 * MAX_SAID).filter(|what| said.is_news("c", what)).count();
        assert_eq!(news, MAX_SAID - 2);
    }
}
