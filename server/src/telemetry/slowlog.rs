//! The slow log: the last commands that took longer than a threshold.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use forebay_resp::Args;
use parking_lot::Mutex;

/// Arguments that an entry keeps; the last of them tells how many more there were (Redis' `SLOWLOG_ENTRY_MAX_ARGC`).
const MAX_ARGUMENTS: usize = 32;
/// Bytes of an argument that an entry keeps (Redis' `SLOWLOG_ENTRY_MAX_STRING`).
const MAX_ARGUMENT: usize = 128;

/// What stands in an entry instead of an argument that is a secret (Redis' word, since tools look for it).
const REDACTED: &[u8] = b"(redacted)";

/// Slow commands, the newest first.
#[derive(Default)]
pub struct SlowLog {
    entries: Mutex<VecDeque<SlowEntry>>,
    next_id: AtomicU64,
}

/// One slow command.
#[derive(Debug, Clone)]
pub struct SlowEntry {
    pub id: u64,
    /// Unix time in seconds.
    pub at: i64,
    pub micros: u64,
    /// The arguments, shortened.
    pub arguments: Vec<Vec<u8>>,
    pub peer: String,
    pub client_name: String,
}

/// A command that was slow, as it comes from the engine.
pub struct Slow<'a> {
    pub args: Args<'a>,
    /// Positions of the arguments that are not to be shown.
    pub secrets: &'a [u32],
    /// Unix time in seconds.
    pub at: i64,
    pub micros: u64,
    pub peer: String,
    pub client_name: String,
}

impl SlowLog {
    /// Adds an entry and drops the oldest ones above `limit`.
    pub fn add(&self, slow: Slow<'_>, limit: usize) {
        let id = self.next_id.fetch_add(1, Relaxed);
        let arguments = shorten(slow.args, slow.secrets);
        let Slow { at, micros, peer, client_name, .. } = slow;
        let entry = SlowEntry { id, at, micros, arguments, peer, client_name };
        let mut entries = self.entries.lock();
        entries.push_front(entry);
        entries.truncate(limit);
    }

    /// The newest `count` entries.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the oldest entries above `limit`.
    pub fn truncate(&self, limit: usize) {
        self.entries.lock().truncate(limit);
    }

    pub fn clear(&self) {
        self.entries.lock().clear();
    }
}

fn shorten(args: Args<'_>, secrets: &[u32]) -> Vec<Vec<u8>> {
    let kept = if args.len() > MAX_ARGUMENTS { MAX_ARGUMENTS - 1 } else { args.len() };
    let shown = |(at, argument)| match secrets.contains(&(at as u32)) {
        true => REDACTED.to_vec(),
        false => shorten_one(argument),
    };
    let mut arguments: Vec<_> = args.iter().take(kept).enumerate().map(shown).collect();
    if args.len() > kept {
        arguments.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    arguments
}

fn shorten_one(argument: &[u8]) -> Vec<u8> {
    match argument.len().checked_sub(MAX_ARGUMENT) {
        None | Some(0) => argument.to_vec(),
        Some(more) => {
            let mut shown = argument[..MAX_ARGUMENT].to_vec();
            shown.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow<'a>(args: Args<'a>, secrets: &'a [u32]) -> Slow<'a> {
        Slow { args, secrets, at: 0, micros: 1, peer: String::new(), client_name: String::new() }
    }

    #[test]
    fn secrets_are_not_kept() {
        let log = SlowLog::default();
        log.add(slow(Args::from(&[&b"auth"[..], b"secret"][..]), &[1]), 1);
        assert_eq!(log.newest(1)[0].arguments, [&b"auth"[..], b"(redacted)"]);
    }

    #[test]
    fn long_requests_are_shortened_and_say_so() {
        let long = [b'x'; MAX_ARGUMENT + 5];
        let arguments: Vec<&[u8]> = std::iter::repeat_n(&long[..], 40).collect();
        let kept = shorten(Args::from(&arguments[..]), &[]);
        assert_eq!(kept.len(), MAX_ARGUMENTS);
        assert!(kept[0].ends_with(b"... (5 more bytes)"));
        assert_eq!(kept[31], b"... (9 more arguments)");
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let log = SlowLog::default();
        for _ in 0..5 {
            log.add(slow(Args::from(&[&b"get"[..]][..]), &[]), 3);
        }
        let ids: Vec<_> = log.newest(10).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [4, 3, 2]);
    }
}
