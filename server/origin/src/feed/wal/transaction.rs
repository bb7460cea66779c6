//! From the messages of a stream to what each transaction changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::pgoutput::{Message, MessageError, RELATION};
use crate::feed::change::{Change, Gathered, Position};
use crate::feed::mapping::{BoundRelation, Facts, Mapping, Relation, RowChange, WrongWidth};
use crate::feed::said::Said;
use crate::feed::status::{Board, add, count};
use crate::snapshot::Xid;

/// 2000-01-01, where Postgres' times begin.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// The most tables that are known from one stream. A publication of all tables of a database may have any number, and nobody says when one
/// is gone; beyond this the stream is to be begun again.
const MAX_TABLES: usize = 20_000;

/// Follows the messages of one stream, from its beginning.
///
/// **Invariant.** *What cannot be understood counts as a change of every key*: a poisoned message costs loads, and leaves nothing stale.
pub(crate) struct Transactions {
    board: Arc<Board>,
    mapping: Mapping,
    facts: Facts,
    tables: HashMap<u32, Table>,
    /// A transaction that runs now, or ran not long ago, to complete ids by.
    near: Xid,
    open: Option<Open>,
    gathered: Gathered,
    said: Said,
}

struct Table {
    relation: Relation,
    bound: BoundRelation,
}

/// The transaction whose changes are coming.
#[derive(Default)]
struct Open {
    xid: Option<Xid>,
    committed_at: Option<SystemTime>,
    /// Parts of it were told of.
    is_begun: bool,
}

/// What a message led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing to tell yet.
    Nothing,
    /// To be told.
    Change(Change),
    /// A transaction has ended that changed no key.
    Passed(Position),
}

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Poison {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Width(#[from] WrongWidth),
    #[error("it is about a table that was not described")]
    Undescribed,
}

impl Transactions {
    pub(crate) fn new(board: Arc<Board>, near: Xid) -> Self {
        Transactions {
            board,
            mapping: Mapping::default(),
            facts: Facts::default(),
            tables: HashMap::new(),
            near,
            open: None,
            gathered: Gathered::default(),
            said: Said::default(),
        }
    }

    /// From now on this is how rows become keys.
    pub(crate) fn map(&mut self, mapping: Mapping, facts: Facts) {
        (self.mapping, self.facts) = (mapping, facts);
        for table in self.tables.values_mut() {
            table.bound = self.mapping.bind(&table.relation, &self.facts);
        }
    }

    /// A transaction that runs now.
    pub(crate) fn set_near(&mut self, near: Xid) {
        self.near = near;
    }

    /// Whether there are so many tables that the stream is to be begun again.
    pub(crate) fn has_too_many_tables(&self) -> bool {
        self.tables.len() > MAX_TABLES
    }

    /// Whether a transaction's end is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the next message.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Taken {
        match Message::read(bytes).map_err(Poison::from).and_then(|message| self.understand(message)) {
            Ok(taken) => taken,
            Err(poison) => {
                self.take_poison(&poison, bytes);
                Taken::Nothing
            }
        }
    }

    fn understand(&mut self, message: Message<'_>) -> Result<Taken, Poison> {
        match message {
            Message::Begin { committed_micros, xid } => self.begin(committed_micros, xid),
            Message::Commit { end } => return Ok(self.commit(Position::new(end))),
            Message::Relation { oid, relation } => {
                let bound = self.mapping.bind(&relation, &self.facts);
                self.tables.insert(oid, Table { relation, bound });
            }
            Message::Row { relation, change } => {
                self.row(relation, &change)?;
                if self.gathered.is_full() {
                    return Ok(Taken::Change(self.part(None)));
                }
            }
            Message::Truncate { relations } => {
                for oid in relations {
                    let table = self.tables.get(&oid).ok_or(Poison::Undescribed)?;
                    table.bound.truncate(&mut self.gathered);
                    self.look_at_mapping(oid);
                }
            }
            Message::Other => {}
        }
        Ok(Taken::Nothing)
    }

    fn begin(&mut self, committed_micros: i64, xid: u32) {
        self.gathered.begin();
        let micros = Duration::from_micros(committed_micros.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH + POSTGRES_EPOCH;
        self.open = Some(Open {
            // What is there already is of one whose end could not be read.
            xid: self.gathered.is_empty().then(|| Xid::extend(xid, self.near)),
            committed_at: if committed_micros < 0 { epoch.checked_sub(micros) } else { epoch.checked_add(micros) },
            is_begun: false,
        });
    }

    fn row(&mut self, oid: u32, change: &RowChange<'_>) -> Result<(), Poison> {
        count(&self.board.counters.rows);
        let table = self.tables.get(&oid).ok_or(Poison::Undescribed)?;
        let mapped = table.bound.change(change, &mut self.gathered)?;
        add(&self.board.counters.null_keys, mapped.null_keys);
        add(&self.board.counters.untold_keys, mapped.untold_keys);
        if mapped.untold_keys > 0 && self.said.is_news("untold", &table.relation) {
            tracing::warn!(
                table = %table.relation,
                "a changed row does not tell its key, so every key of its groups is invalidated: see `forebay check`"
            );
        }
        if mapped.null_keys > 0 && self.said.is_news("null", &table.relation) {
            tracing::info!(table = %table.relation, "a changed row has no key, since a column of it is NULL");
        }
        self.look_at_mapping(oid);
        Ok(())
    }

    /// Counts a change of a table that no group names, and says so once.
    fn look_at_mapping(&mut self, oid: u32) {
        let Some(table) = self.tables.get(&oid).filter(|table| table.bound.is_unmapped()) else { return };
        count(&self.board.counters.unmapped);
        if self.said.is_news("unmapped", &table.relation) {
            tracing::info!(table = %table.relation, "the publication has a table that no group names");
        }
    }

    fn take_poison(&mut self, poison: &Poison, bytes: &[u8]) {
        count(&self.board.counters.unreadable);
        // What was told of before may have been of another transaction.
        self.gathered.begin();
        self.mapping.groups().for_each(|group| self.gathered.add_all(group));
        // Changes are told of at a commit; where the beginning was what could not be read, this is it.
        self.open.get_or_insert_default();
        if bytes.first() == Some(&RELATION) {
            // Which table has changed is not known, so none is; their rows are poison, too.
            self.tables.clear();
        }
        if self.said.is_news("poison", poison) {
            let begins: Vec<u8> = bytes.iter().take(32).copied().collect();
            tracing::error!(%poison, ?begins, "a message of the database cannot be read, so every key is invalidated");
        }
    }

    fn commit(&mut self, end: Position) -> Taken {
        let is_begun = self.open.as_ref().is_some_and(|open| open.is_begun);
        let taken = match is_begun || !self.gathered.is_empty() {
            true => Taken::Change(self.part(Some(end))),
            false => Taken::Passed(end),
        };
        self.open = None;
        self.gathered.begin();
        taken
    }

    fn part(&mut self, position: Option<Position>) -> Change {
        let affected = self.gathered.take();
        let open = self.open.get_or_insert_default();
        open.is_begun = true;
        self.board.count(&affected);
        if position.is_some() {
            count(&self.board.counters.transactions);
        }
        Change { xid: open.xid, committed_at: open.committed_at, affected, position }
    }
}

#[cfg(test)]
mod tests;
