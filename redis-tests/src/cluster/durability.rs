//! Is every write that was acknowledged still there when all is quiet again?
//!
//! This follows from linearizability, and asks for less: it holds for a cache that may show a write which it then loses, as long as nobody was
//! told that the write is safe. A message of it says plainly what was lost.

use std::fmt;
use std::time::Duration;

use super::history::{Call, Event, History, Outcome};

/// A key that ended with an older value than the last one acknowledged, or with one that nobody wrote.
#[derive(Clone, Debug)]
pub struct Loss {
    pub key: u32,
    pub finally: Option<u64>,
    /// The write that is gone: it began after that of the final value had ended.
    pub lost: Option<Event>,
}

/// What is lost, given what each key holds in the end.
pub fn losses(history: &History, finally: &[(u32, Option<u64>)]) -> Vec<Loss> {
    finally.iter().filter_map(|(key, value)| loss_of(history, *key, *value)).collect()
}

fn loss_of(history: &History, key: u32, finally: Option<u64>) -> Option<Loss> {
    let ended = match finally {
        None => Duration::ZERO,
        Some(value) => match history.of_key(key).find(|event| event.call == Call::Write(value)) {
            None => return Some(Loss { key, finally, lost: None }),
            Some(write) if write.outcome == Outcome::Written => write.ended,
            Some(_) => Duration::MAX,
        },
    };
    let is_lost = |event: &&Event| event.outcome == Outcome::Written && ended < event.began;
    let lost = history.of_key(key).filter(is_lost).max_by_key(|event| event.began)?.clone();
    Some(Loss { key, finally, lost: Some(lost) })
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} ends with {:?}", self.key, self.finally)?;
        match &self.lost {
            Some(write) => write!(f, ", which is older than\n{write}"),
            None => f.write_str(", which nobody wrote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(times: std::ops::Range<u64>, value: u64, outcome: Outcome) -> Event {
        let [began, ended] = [times.start, times.end].map(Duration::from_micros);
        Event { client: 0, key: 3, call: Call::Write(value), outcome, began, ended }
    }

    fn is_lost(events: &[Event], finally: Option<u64>) -> bool {
        !losses(&History { events: events.to_vec() }, &[(3, finally)]).is_empty()
    }

    #[test]
    fn the_last_acknowledged_write_must_be_there_or_a_concurrent_one() {
        let unknown = Outcome::Unknown("closed".to_owned());
        let events = [
            write(1..2, 1, Outcome::Written),
            write(3..9, 2, Outcome::Written),
            write(4..6, 3, Outcome::Written),
            write(1..2, 4, unknown),
        ];
        assert!(is_lost(&events, Some(1)));
        assert!(!is_lost(&events, Some(2)));
        assert!(!is_lost(&events, Some(3)));
        assert!(!is_lost(&events, Some(4)), "a write of unknown outcome may take effect at last");
        assert!(is_lost(&events, Some(99)), "nobody wrote it");
        assert!(is_lost(&events, None));
        assert!(!is_lost(&events[3..], None), "nothing was acknowledged");
    }
}
