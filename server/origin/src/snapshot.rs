//! What a load could see: Postgres' snapshots, and the ids of transactions that they tell apart.
//!
//! A load that did not see a transaction must not be kept once that transaction has changed its key. [`Snapshot::sees`] answers that
//! as `pg_visible_in_snapshot` does.

use std::fmt;
use std::str::FromStr;

/// A transaction's id with its epoch, as `pg_current_xact_id()` gives it: it never comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid(pub u64);

impl Xid {
    /// The id whose lower half is `low`: of all that have it, the one nearest to `near`.
    ///
    /// The write-ahead log tells the lower half only. What it tells of is never further than 2³¹ transactions away from those that run
    /// now: a slot holds the oldest one back, and Postgres refuses new ones before the distance is reached.
    pub fn extend(low: u32, near: Xid) -> Xid {
        let ahead = low.wrapping_sub(near.0 as u32) as i32;
        // Nothing precedes the first epoch.
        match near.0.checked_add_signed(i64::from(ahead)) {
            Some(xid) => Xid(xid),
            None => Xid(u64::from(low)),
        }
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Which transactions had been committed as far as a statement could see, as `pg_current_snapshot()` gives it.
///
/// Of those that it sees some may have been rolled back; nobody is told of what they changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything below had ended.
    xmin: Xid,
    /// Nothing from here on had begun.
    xmax: Xid,
    /// What was running between the two, ascending.
    in_progress: Box<[Xid]>,
}

/// The most transactions that are listed as unseen since a snapshot was taken.
const MAX_BEGUN_SINCE: u64 = 1000;

/// Why a text or some bytes are no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no snapshot")]
pub struct NoSnapshot;

impl Snapshot {
    /// A snapshot of these bounds and of what was running between them, in any order.
    ///
    /// # Errors
    /// When the bounds are in the wrong order, or something is not between them.
    pub fn new(xmin: Xid, xmax: Xid, mut in_progress: Vec<Xid>) -> Result<Self, NoSnapshot> {
        in_progress.sort_unstable();
        in_progress.dedup();
        let is_between = |xid: &Xid| (xmin..xmax).contains(xid);
        if xmin > xmax || !in_progress.iter().all(is_between) {
            return Err(NoSnapshot);
        }
        Ok(Snapshot { xmin, xmax, in_progress: in_progress.into() })
    }

    /// The part of this snapshot that holds on a standby.
    ///
    /// There `pg_current_snapshot()` names no running transaction, since a standby keeps its list of them elsewhere (tried on
    /// PostgreSQL 15): what lies between the bounds may or may not have been seen. So it counts as not seen.
    pub fn of_standby(self) -> Self {
        Snapshot { xmax: self.xmin, in_progress: Box::default(), ..self }
    }

    /// The same, and it sees `xid`, too: what a transaction left behind that began with this snapshot. If `xid` is far beyond what had
    /// begun then, it stays unseen.
    pub fn and(self, xid: Xid) -> Self {
        let begun_since = xid.0.saturating_sub(self.xmax.0);
        if self.sees(xid) || begun_since > MAX_BEGUN_SINCE {
            return self;
        }
        let begun_since = (self.xmax.0..xid.0).map(Xid);
        let unseen = self.in_progress.iter().copied().chain(begun_since).filter(|other| *other != xid);
        Snapshot { in_progress: unseen.collect(), xmax: self.xmax.max(Xid(xid.0 + 1)), ..self }
    }

    /// Everything below had ended.
    pub fn xmin(&self) -> Xid {
        self.xmin
    }

    /// Nothing from here on had begun.
    pub fn xmax(&self) -> Xid {
        self.xmax
    }

    /// What was running between the two, ascending.
    pub fn in_progress(&self) -> &[Xid] {
        &self.in_progress
    }

    /// Whether what `xid` changed could be seen, given that it was committed.
    #[inline]
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// Whether this one sees every transaction that `other` sees.
    pub fn covers(&self, other: &Snapshot) -> bool {
        // Whatever this one does not see, the other must not see either: what ran, and all from its end on.
        let running = self.in_progress.iter().all(|xid| !other.sees(*xid));
        let later = other.in_progress.partition_point(|xid| *xid < self.xmax);
        let unseen = (other.in_progress.len() - later) as u64;
        let reaches = other.xmax <= self.xmax || (other.xmin <= self.xmax && unseen == other.xmax.0 - self.xmax.0);
        running && reaches
    }

    /// Appends a compact form: numbers of seven bits a byte, each as the distance from the one before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.xmin.0);
        put_number(out, self.xmax.0 - self.xmin.0);
        put_number(out, self.in_progress.len() as u64);
        let mut before = self.xmin.0;
        for xid in &self.in_progress {
            put_number(out, xid.0 - before);
            before = xid.0;
        }
    }

    /// Reads what [`Snapshot::encode`] wrote, from the beginning of `bytes` on, and leaves what follows it.
    ///
    /// # Errors
    /// When it begins with no snapshot.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, NoSnapshot> {
        let xmin = number(bytes)?;
        let xmax = xmin.checked_add(number(bytes)?).ok_or(NoSnapshot)?;
        let count = number(bytes)?;
        // Each takes a byte at least, so that nobody can ask for more memory than was sent.
        if count > bytes.len() as u64 {
            return Err(NoSnapshot);
        }
        let mut before = xmin;
        let mut in_progress = Vec::with_capacity(count as usize);
        for _ in 0..count {
            before = before.checked_add(number(bytes)?).ok_or(NoSnapshot)?;
            in_progress.push(Xid(before));
        }
        Snapshot::new(Xid(xmin), Xid(xmax), in_progress)
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(bytes: &mut &[u8]) -> Result<u64, NoSnapshot> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(NoSnapshot)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(NoSnapshot);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(NoSnapshot)
}

impl FromStr for Snapshot {
    type Err = NoSnapshot;

    /// Reads Postgres' form: `10:20:10,14,15`.
    fn from_str(text: &str) -> Result<Self, NoSnapshot> {
        let xid = |digits: &str| digits.parse().map(Xid).map_err(|_| NoSnapshot);
        let mut parts = text.splitn(3, ':');
        let (Some(xmin), Some(xmax), Some(running)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoSnapshot);
        };
        let running = running.split(',').filter(|digits| !digits.is_empty()).map(xid).collect::<Result<_, _>>()?;
        Snapshot::new(xid(xmin)?, xid(xmax)?, running)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:", self.xmin, self.xmax)?;
        for (place, xid) in self.in_progress.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(out, "{comma}{xid}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn what_postgres_prints_is_read_and_printed_again() {
        for text in ["727:727:", "725:727:725", "10:20:10,14,15", "18446744073709551614:18446744073709551615:"] {
            assert_eq!(parsed(text).to_string(), text);
        }
        for text in ["", "1", "1:2", "3:2:", "1:5:7", "1:5:5", "a:5:", "1:5:2;3", "-1:5:", "1:18446744073709551616:"] {
            assert_eq!(text.parse::<Snapshot>(), Err(NoSnapshot), "{text}");
        }
    }

    #[test]
    fn a_transaction_is_seen_if_it_had_ended() {
        let snapshot = parsed("10:20:10,14");
        let seen: Vec<u64> = (8..22).filter(|xid| snapshot.sees(Xid(*xid))).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        let standby = snapshot.of_standby();
        assert!(standby.sees(Xid(9)) && (10..22).all(|xid| !standby.sees(Xid(xid))));
    }

    #[test]
    fn the_lower_half_of_an_id_is_completed_across_the_ends_of_epochs() {
        const EPOCH: u64 = 1 << 32;
        for (low, near, whole) in [
            (700, 727, 700),
            (900, 727, 900),
            (5, 3 * EPOCH - 10, 3 * EPOCH + 5),
            (u32::MAX, 3 * EPOCH + 10, 3 * EPOCH - 1),
            (7, 3 * EPOCH + 7, 3 * EPOCH + 7),
            // Nothing precedes the first epoch.
            (u32::MAX, 10, u64::from(u32::MAX)),
        ] {
            assert_eq!(Xid::extend(low, Xid(near)), Xid(whole), "{low} near {near}");
        }
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_refused() {
        let mut bytes = Vec::new();
        parsed("300:5000:300,4000").encode(&mut bytes);
        assert_eq!(bytes.len(), 8);
        for length in 0..bytes.len() {
            assert_eq!(Snapshot::decode(&mut &bytes[..length]), Err(NoSnapshot), "{length} bytes");
        }
        for bytes in [&[0xff; 11][..], &[1, 1, 200, 1], &[1, 0, 1, 0], &[2, 1, 1, 1]] {
            assert_eq!(Snapshot::decode(&mut &*bytes), Err(NoSnapshot), "{bytes:?}");
        }
    }

    /// Snapshots of few transactions, so that they often differ in one only.
    fn snapshot() -> impl Strategy<Value = Snapshot> {
        (1_u64..20, 0_u64..12, prop::collection::vec(0_u64..12, 0..6)).prop_map(|(xmin, length, running)| {
            let running = running.into_iter().filter(|offset| *offset < length);
            Snapshot::new(Xid(xmin), Xid(xmin + length), running.map(|offset| Xid(xmin + offset)).collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn it_sees_what_is_in_the_set_of_what_had_ended(snapshot in snapshot()) {
            let mut ended: std::collections::BTreeSet<u64> = (0..snapshot.xmax().0).collect();
            snapshot.in_progress().iter().for_each(|xid| { ended.remove(&xid.0); });
            for xid in 0..40 {
                prop_assert_eq!(snapshot.sees(Xid(xid)), ended.contains(&xid));
            }
        }

        #[test]
        fn one_covers_another_if_it_sees_all_that_the_other_sees(one in snapshot(), other in snapshot()) {
            let model = (0..40).all(|xid| !other.sees(Xid(xid)) || one.sees(Xid(xid)));
            prop_assert_eq!(one.covers(&other), model, "{} {}", one, other);
            prop_assert!(one.covers(&one.clone().of_standby()));
        }

        #[test]
        fn with_a_transaction_it_sees_that_and_no_other_one_more(snapshot in snapshot(), added in 0_u64..45) {
            let more = snapshot.clone().and(Xid(added));
            for xid in 0..50 {
                prop_assert_eq!(more.sees(Xid(xid)), snapshot.sees(Xid(xid)) || xid == added, "{} {}", snapshot, more);
            }
            prop_assert_eq!(more.to_string().parse::<Snapshot>().unwrap(), more);
        }

        #[test]
        fn both_forms_are_read_back(xmin in any::<u64>(), lengths in prop::collection::vec(0_u64..1 << 40, 1..6), rest in any::<[u8; 3]>()) {
            let mut ids: Vec<Xid> = lengths.iter().scan(xmin >> 1, |at, length| { *at += length; Some(Xid(*at)) }).collect();
            let xmax = Xid(ids.last().unwrap().0 + 1);
            ids.retain(|xid| xid.0 % 2 == 0);
            let snapshot = Snapshot::new(Xid(xmin >> 1), xmax, ids).unwrap();
            prop_assert_eq!(&snapshot.to_string().parse::<Snapshot>().unwrap(), &snapshot);
            let mut bytes = Vec::new();
            snapshot.encode(&mut bytes);
            bytes.extend(rest);
            let mut left = &bytes[..];
            prop_assert_eq!(&Snapshot::decode(&mut left).unwrap(), &snapshot);
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[0-9:,]{0,20}") {
            if let Ok(snapshot) = Snapshot::decode(&mut &bytes[..]) {
                prop_assert!(snapshot.xmin() <= snapshot.xmax());
            }
            let _read = text.parse::<Snapshot>();
        }

        #[test]
        fn an_id_is_completed_from_any_id_less_than_half_an_epoch_away(xid in 1_u64 << 33.., away in i32::MIN + 1..i32::MAX) {
            if let Some(near) = xid.checked_add_signed(i64::from(away)) {
                prop_assert_eq!(Xid::extend(xid as u32, Xid(near)), Xid(xid));
            }
        }
    }
}
