//! The holder's end of a feed: carries out what the owners of its slots tell it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::NodeNumber;
use forebay_cluster::state::Position;
use forebay_resp::Args;
use forebay_store::{DigestLimits, Key, Keyspace};

use super::effect::{Answer, Effect, Malformed, Record};
use super::frames::Assembler;
use super::recording::size_of;
use super::slot_log::{Copy, Duty, SlotLog};
use super::{Feed, Host, Replication};

/// How long a holder waits for the state of the cluster by which a feed's sender acts. The feed ends then, and is begun anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a holder ends a feed.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the state of epoch {0}, by which the peer acts, has not come")]
    Behind(u64),
    #[error(
        "the peer has a database {db}, and this node was started with {here} of them; hint: start all nodes with the same --databases"
    )]
    Databases { db: u16, here: u16 },
    #[error("the peer has gone")]
    Gone,
    #[error("the peer has begun another")]
    Superseded,
}

/// A record that the holder has not carried out.
enum Fault {
    /// What is held of the slot is not what the owner holds.
    Astray,
    /// The sender does not own the slot, or it is not to be held here.
    Refused,
}

impl Replication {
    /// Carries out what a peer sends, until the feed ends. To be called for each feed that a peer opens here.
    pub async fn follow(&self, host: &dyn Host, from: NodeNumber, feed: Feed) {
        let error = match self.follow_to_end(host, from, feed).await {
            Ok(()) | Err(End::Gone | End::Superseded) => return,
            Err(error) => error,
        };
        tracing::warn!(peer = from.0, %error, "a feed is ended");
    }

    async fn follow_to_end(&self, host: &dyn Host, from: NodeNumber, feed: Feed) -> Result<(), End> {
        let Feed { outgoing, mut incoming } = feed;
        let (mut assembler, mut records, (feed, latest)) = (Assembler::default(), 0, self.begin_feed(from));
        while let Some(mut frame) = incoming.recv().await {
            let (mut answers, before) = (Vec::new(), records);
            while let Some(record) = assembler.next(&mut frame)? {
                let record = Record::read(&record)?;
                self.catch_up_with(&record).await?;
                records += 1;
                let is_latest = || latest.load(Acquire) == feed;
                if let Some(answer) = self.carry_out(host, from, (feed, &is_latest), (records, &record))? {
                    answer.write(&mut answers);
                }
            }
            if records > before {
                // Behind the others: by the time that they are counted as dealt with, it is known which were not.
                Answer::Dealt { records }.write(&mut answers);
                outgoing.send(Bytes::from(answers)).await.map_err(|_| End::Gone)?;
            }
        }
        Ok(())
    }

    /// Waits until this node knows what the sender knew when it made this node a holder.
    async fn catch_up_with(&self, record: &Record<'_>) -> Result<(), End> {
        let (Record::Follow { view, .. } | Record::Begin { view, .. }) = record else {
            return Ok(());
        };
        if *self.applied.borrow() >= *view {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let known = tokio::time::timeout(PATIENCE, applied.wait_for(|epoch| epoch >= view)).await;
        match known {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Behind(*view)),
        }
    }

    /// A number for a feed of that peer, and which is its latest. What an earlier one still has on its way, since a connection was given up at its
    /// other end first, is older than what the later one has brought.
    fn begin_feed(&self, from: NodeNumber) -> (u64, Arc<AtomicU64>) {
        let mut heard = self.heard.lock();
        let latest = Arc::clone(heard.entry(from).or_default());
        let feed = self.next_feed();
        latest.store(feed, Release);
        (feed, latest)
    }

    /// Carries a record out, which has a number in its feed, under the lock of the slot.
    fn carry_out(
        &self,
        host: &dyn Host,
        from: NodeNumber,
        (feed, is_latest): (u64, &dyn Fn() -> bool),
        (number, record): (u64, &Record<'_>),
    ) -> Result<Option<Answer>, End> {
        let (slot, here) = (record.slot(), host.store().databases());
        // Before anything is counted as held.
        if let Some(db) = record.db().filter(|db| !host.store().has_database(*db)) {
            return Err(End::Databases { db, here });
        }
        // A command is to find what the owner's run found.
        let now = match record {
            Record::Effect { effect: Effect::Run { now, .. }, .. } => *now,
            _ => host.now(),
        };
        let mut keyspace = host.store().lock(slot, now);
        let mut log = self.log(slot).lock();
        // Under the lock: what the later feed says of the slot comes behind this.
        if !is_latest() {
            return Err(End::Superseded);
        }
        let done = carry_out(host, &mut keyspace, &mut log, from, feed, record);
        let garbage = std::mem::take(keyspace.garbage());
        let fault = match done {
            Ok(()) => None,
            Err(Wrong::Malformed) => return Err(Malformed.into()),
            Err(Wrong::Fault(fault)) => {
                log.part_from(feed);
                Some(fault)
            }
            Err(Wrong::Told) => return Ok(None),
        };
        drop((log, keyspace));
        if !garbage.is_empty() {
            host.reclaim(garbage);
        }
        self.count(record, &fault);
        Ok(fault.map(|fault| match fault {
            Fault::Astray => Answer::Astray { slot },
            Fault::Refused => Answer::Refused { slot, record: number },
        }))
    }

    fn count(&self, record: &Record<'_>, fault: &Option<Fault>) {
        match (record, fault) {
            (_, None) => self.counts.carried_out.fetch_add(1, Relaxed),
            (Record::Digest { .. } | Record::Effect { .. }, Some(Fault::Astray)) => {
                self.counts.repaired.fetch_add(1, Relaxed)
            }
            (_, Some(_)) => return,
        };
        if matches!(record, Record::Digest { .. }) {
            self.counts.compared.fetch_add(1, Relaxed);
        }
    }
}

/// Why a record was not carried out.
enum Wrong {
    Fault(Fault),
    /// The sender has been told so before.
    Told,
    Malformed,
}

const ASTRAY: Wrong = Wrong::Fault(Fault::Astray);
const REFUSED: Wrong = Wrong::Fault(Fault::Refused);

impl From<forebay_store::Malformed> for Wrong {
    fn from(_: forebay_store::Malformed) -> Self {
        Wrong::Malformed
    }
}

fn carry_out(
    host: &dyn Host,
    keyspace: &mut Keyspace<'_>,
    log: &mut SlotLog,
    from: NodeNumber,
    feed: u64,
    record: &Record<'_>,
) -> Result<(), Wrong> {
    let slot = record.slot();
    match record {
        Record::Follow { was, position, .. } => {
            log.expect_owner(from, position.epoch)?;
            // Whatever it followed before, it is this feed's from here on.
            log.copy = Copy::default();
            let inherited = Position { epoch: *was, ..*position };
            if log.renewal.is_some() || (log.position != *position && log.position != inherited) {
                return Err(ASTRAY);
            }
            log.position = *position;
            log.copy = Copy::Following { feed };
        }
        Record::Begin { position, .. } => {
            log.expect_owner(from, position.epoch)?;
            if log.position == Position::default() {
                keyspace.forget_slot(slot);
            } else {
                log.renewal = Some(Box::default());
            }
            log.is_thinned = false;
            log.copy = Copy::Receiving { feed, at: *position };
        }
        Record::Entry { db, key, entry, .. } => {
            let Copy::Receiving { .. } = log.copy_of(feed)? else { return Err(ASTRAY) };
            let key = host.store().key(*db, slot, key);
            keyspace.install(&key, entry)?;
            log.came(&key);
        }
        Record::End { position, .. } => {
            let Copy::Receiving { at, .. } = log.copy_of(feed)? else { return Err(ASTRAY) };
            if at != *position {
                return Err(ASTRAY);
            }
            if let Some(renewal) = log.renewal.take() {
                renewal.end(host.store(), keyspace, slot);
            }
            log.position = at;
            log.copy = Copy::Following { feed };
        }
        Record::Effect { sequence, effect, .. } => {
            log.advance(feed, *sequence)?;
            apply(host, keyspace, log, slot, effect)?;
        }
        Record::Digest { sequence, horizon, digest, .. } => {
            let Copy::Following { .. } = log.copy_of(feed)? else { return Err(ASTRAY) };
            if log.position.sequence != *sequence {
                return Err(ASTRAY);
            }
            let own = keyspace.digest_slot(slot, *horizon, DigestLimits::NONE);
            if own != Some(*digest) && !log.is_thinned {
                return Err(ASTRAY);
            }
        }
    }
    Ok(())
}

/// Makes the change. A command must leave its key with the size that it left at the owner; but while the slot is not whole, the key may be
/// yet to come, and then comes as it is afterwards: what is held of it until then stays what it was.
fn apply(
    host: &dyn Host,
    keyspace: &mut Keyspace<'_>,
    log: &mut SlotLog,
    slot: u16,
    effect: &Effect<'_>,
) -> Result<(), Wrong> {
    match effect {
        Effect::Put { db, key, entry } => {
            let key = host.store().key(*db, slot, key);
            keyspace.install(&key, entry)?;
            log.came(&key);
        }
        Effect::Remove { db, key } => keyspace.uninstall(&host.store().key(*db, slot, key)),
        Effect::Flush { db } => keyspace.clear_slot(slot, *db),
        Effect::Run { db, key_at, size, args, .. } => {
            let Some(key) = args.get(*key_at as usize) else { return Err(Wrong::Malformed) };
            let key = host.store().key(*db, slot, key);
            if log.renewal.as_ref().is_some_and(|renewal| !renewal.has(&key)) {
                return Ok(());
            }
            host.run(keyspace, *db, Args::from(&args[..]));
            let left = keyspace.peek(&key).map(|entry| size_of(entry.value()));
            if matches!(log.copy, Copy::Following { .. }) && left != Some(*size) {
                return Err(ASTRAY);
            }
        }
    }
    Ok(())
}

impl SlotLog {
    /// The sender must be who owns the slot, as this node knows it.
    fn expect_owner(&self, from: NodeNumber, epoch: u64) -> Result<(), Wrong> {
        match self.duty {
            Duty::Holder { owner: Some(owner), since } if (owner, since) == (from, epoch) => Ok(()),
            Duty::Holder { .. } | Duty::Owner { .. } | Duty::Away => Err(REFUSED),
        }
    }

    /// How the copy stands, if it is this feed's to keep. When the slot comes to be another's, no feed has it any more.
    fn copy_of(&self, feed: u64) -> Result<Copy, Wrong> {
        match self.copy {
            Copy::Following { feed: known } | Copy::Receiving { feed: known, .. } if known == feed => Ok(self.copy),
            Copy::Apart { told } if told == feed => Err(Wrong::Told),
            Copy::Apart { .. } | Copy::Following { .. } | Copy::Receiving { .. } => Err(REFUSED),
        }
    }

    /// An entry has come as the owner has it.
    fn came(&mut self, key: &Key<'_>) {
        if let Some(renewal) = &mut self.renewal {
            renewal.note(key);
        }
    }

    /// The copy does not follow this feed. If it follows another one, it goes on to: what a former owner still says means nothing to it.
    fn part_from(&mut self, feed: u64) {
        match self.copy {
            Copy::Following { feed: other } | Copy::Receiving { feed: other, .. } if other != feed => {}
            Copy::Apart { .. } | Copy::Following { .. } | Copy::Receiving { .. } => {
                self.copy = Copy::Apart { told: feed }
            }
        }
    }

    /// Goes on by an effect, which must be the next one.
    fn advance(&mut self, feed: u64, sequence: u64) -> Result<(), Wrong> {
        let copy = self.copy_of(feed)?;
        let at = match (&mut self.copy, copy) {
            (Copy::Receiving { at, .. }, _) => at,
            (Copy::Following { .. } | Copy::Apart { .. }, _) => &mut self.position,
        };
        if sequence != at.sequence + 1 {
            return Err(ASTRAY);
        }
        at.sequence = sequence;
        Ok(())
    }
}
