//! The messages of Postgres' `pgoutput` plugin, protocol version 1: without streaming of what is not committed, and without two-phase
//! commits, so that a transaction comes as a whole once it is committed.
//!
//! Any bytes are taken or refused; nothing is copied. The layout is that of PostgreSQL's documentation, "Logical Replication Message
//! Formats".

use crate::feed::mapping::{Cell, Column, OldRow, Relation, RowChange};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'m> {
    Begin {
        committed_micros: i64,
        xid: u32,
    },
    Commit {
        end: u64,
    },
    Relation {
        oid: u32,
        relation: Relation,
    },
    Row {
        relation: u32,
        change: RowChange<'m>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// What carries no change of a row: an origin, a type, a message that somebody wrote into the log.
    Other,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("it ends too early")]
    Short,
    #[error("{0} bytes follow its end")]
    Rest(usize),
    #[error("`{}` is no kind of message that was asked for", char::from(*.0))]
    Kind(u8),
    #[error("`{}` is no kind of row", char::from(*.0))]
    Row(u8),
    #[error("`{}` is no kind of value", char::from(*.0))]
    Cell(u8),
    #[error("a length is negative")]
    Length,
    #[error("a name is no UTF-8")]
    Name,
}

/// The kind of a message that describes a table.
pub(crate) const RELATION: u8 = b'R';

/// The flag of a column that is part of the replica identity.
const IN_IDENTITY: u8 = 1;

impl<'m> Message<'m> {
    /// Reads one message.
    pub(crate) fn read(bytes: &'m [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { rest: bytes };
        let message = match reader.byte()? {
            b'B' => {
                let _final = reader.u64()?;
                Message::Begin { committed_micros: reader.u64()? as i64, xid: reader.u32()? }
            }
            b'C' => {
                let (_flags, _commit) = (reader.byte()?, reader.u64()?);
                let end = reader.u64()?;
                let _committed = reader.u64()?;
                Message::Commit { end }
            }
            RELATION => Message::Relation { oid: reader.u32()?, relation: reader.relation()? },
            b'I' => Message::Row { relation: reader.u32()?, change: reader.insert()? },
            b'U' => Message::Row { relation: reader.u32()?, change: reader.update()? },
            b'D' => Message::Row { relation: reader.u32()?, change: reader.delete()? },
            b'T' => Message::Truncate { relations: reader.truncated()? },
            b'O' => {
                let _position = reader.u64()?;
                reader.name()?;
                Message::Other
            }
            b'Y' => {
                let _oid = reader.u32()?;
                let (_schema, _name) = (reader.name()?, reader.name()?);
                Message::Other
            }
            b'M' => {
                let (_flags, _position, _prefix) = (reader.byte()?, reader.u64()?, reader.name()?);
                let length = reader.length()?;
                reader.take(length)?;
                Message::Other
            }
            kind => return Err(MessageError::Kind(kind)),
        };
        match reader.rest.len() {
            0 => Ok(message),
            rest => Err(MessageError::Rest(rest)),
        }
    }
}

struct Reader<'m> {
    rest: &'m [u8],
}

impl<'m> Reader<'m> {
    fn relation(&mut self) -> Result<Relation, MessageError> {
        let (schema, name) = (self.name()?, self.name()?);
        let _identity = self.byte()?;
        let columns = (0..self.count()?).map(|_| self.column()).collect::<Result<_, _>>()?;
        // The system's own schema is sent as an empty name.
        let schema = if schema.is_empty() { "pg_catalog" } else { schema };
        Ok(Relation { schema: schema.to_owned(), name: name.to_owned(), columns })
    }

    fn column(&mut self) -> Result<Column, MessageError> {
        let flags = self.byte()?;
        let name = self.name()?.to_owned();
        let type_oid = self.u32()?;
        let _modifier = self.u32()?;
        Ok(Column { name, type_oid, in_identity: flags & IN_IDENTITY != 0 })
    }

    fn insert(&mut self) -> Result<RowChange<'m>, MessageError> {
        match self.byte()? {
            b'N' => Ok(RowChange::Insert { new: self.cells()? }),
            kind => Err(MessageError::Row(kind)),
        }
    }

    fn update(&mut self) -> Result<RowChange<'m>, MessageError> {
        let (old, kind) = match self.byte()? {
            kind @ (b'K' | b'O') => (Some(self.old(kind)?), self.byte()?),
            kind => (None, kind),
        };
        match kind {
            b'N' => Ok(RowChange::Update { old, new: self.cells()? }),
            kind => Err(MessageError::Row(kind)),
        }
    }

    fn delete(&mut self) -> Result<RowChange<'m>, MessageError> {
        match self.byte()? {
            kind @ (b'K' | b'O') => Ok(RowChange::Delete { old: self.old(kind)? }),
            kind => Err(MessageError::Row(kind)),
        }
    }

    fn old(&mut self, kind: u8) -> Result<OldRow<'m>, MessageError> {
        Ok(OldRow { is_whole: kind == b'O', cells: self.cells()? })
    }

    fn cells(&mut self) -> Result<Vec<Cell<'m>>, MessageError> {
        (0..self.count()?).map(|_| self.cell()).collect()
    }

    fn cell(&mut self) -> Result<Cell<'m>, MessageError> {
        Ok(match self.byte()? {
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            b't' => {
                let length = self.length()?;
                Cell::Text(self.take(length)?)
            }
            b'b' => {
                let length = self.length()?;
                self.take(length)?;
                Cell::Binary
            }
            kind => return Err(MessageError::Cell(kind)),
        })
    }

    fn truncated(&mut self) -> Result<Vec<u32>, MessageError> {
        let count = self.length()?;
        let _flags = self.byte()?;
        // Four bytes each, so that nobody can ask for more memory than was sent.
        if count > self.rest.len() / 4 {
            return Err(MessageError::Short);
        }
        (0..count).map(|_| self.u32()).collect()
    }

    /// A number of columns; each takes a byte at least.
    fn count(&mut self) -> Result<usize, MessageError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count > self.rest.len() { Err(MessageError::Short) } else { Ok(count) }
    }

    fn length(&mut self) -> Result<usize, MessageError> {
        usize::try_from(self.u32()? as i32).map_err(|_| MessageError::Length)
    }

    /// Bytes up to a zero.
    fn name(&mut self) -> Result<&'m str, MessageError> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(MessageError::Short)?;
        let name = self.take(end)?;
        self.byte()?;
        std::str::from_utf8(name).map_err(|_| MessageError::Name)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(MessageError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], MessageError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MessageError::Short)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
pub(super) mod tests;
