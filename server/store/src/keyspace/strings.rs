//! Strings, as commands use them.

use bytes::Bytes;

use super::writes::Edited;
use super::{Expiry, Keyspace, WrongType};
use crate::entry::{Entry, Value, ValueMut, ValueView};
use crate::entry_ref::ValueRef;
use crate::integer::parse_integer;
use crate::key::Key;
use crate::shard::Found;
use crate::string::{StringMut, StringRef, changed_value, compact_shared, compact_value, text_value};
use crate::table::Place;

impl Keyspace<'_> {
    /// As [`Keyspace::read`], for a key that must hold a string.
    #[inline]
    pub fn read_string(&mut self, key: &Key<'_>) -> Result<Option<StringRef<'_>>, WrongType> {
        match self.read(key) {
            None => Ok(None),
            Some(ValueRef::String(string)) => Ok(Some(string)),
            Some(ValueRef::Hash(_)) => Err(WrongType),
        }
    }

    /// Sets the key to a string, whatever it held.
    pub fn set_string(&mut self, key: &Key<'_>, value: &[u8], expiry: Expiry) {
        let value = compact_value(value, self.settings().compress_over());
        self.write(key, value, expiry);
    }

    /// As [`Self::set_string`], but a long value is kept without copying it.
    pub fn set_string_shared(&mut self, key: &Key<'_>, value: &Bytes, expiry: Expiry) {
        let value = compact_shared(value, self.settings().compress_over());
        self.write(key, value, expiry);
    }

    /// As [`Self::set_string`], but a number stays the text that it is; so Redis keeps what INCRBYFLOAT leaves.
    pub fn set_text(&mut self, key: &Key<'_>, value: &[u8], expiry: Expiry) {
        let value = text_value(value, self.settings().compress_over());
        self.write(key, value, expiry);
    }

    /// Sets the key to a string that was put together in a buffer, whatever it held. It counts as one that was changed in
    /// place, and a long one's buffer is kept.
    pub fn set_built(&mut self, key: &Key<'_>, mut value: Vec<u8>, expiry: Expiry) {
        self.write(key, changed_value(&mut value), expiry);
    }

    /// Sets the key to a number, whatever it held.
    pub fn set_integer(&mut self, key: &Key<'_>, value: i64, expiry: Expiry) {
        self.write(key, Value::Integer(value), expiry);
    }

    /// Changes the string under the key in place. A missing key is an empty string if `create`, and comes into being if
    /// `change` changes it; otherwise `change` is not called and the answer is `None`.
    pub fn update_string<R>(
        &mut self,
        key: &Key<'_>,
        create: bool,
        change: impl FnOnce(&mut StringMut<'_>) -> R,
    ) -> Result<Option<R>, WrongType> {
        match self.lookup(key) {
            Found::Live(place) => match self.entry_mut(key, place).value() {
                ValueView::Absent | ValueView::CompactHash(_) | ValueView::HashTable(_) => Err(WrongType),
                ValueView::Big(_) => Ok(Some(self.change_big_string(key, place, change))),
                ValueView::Integer(_) | ValueView::Short { .. } => {
                    Ok(Some(self.change_short_string(key, Found::Live(place), change)))
                }
            },
            _ if !create => Ok(None),
            found => Ok(Some(self.change_short_string(key, found, change))),
        }
    }

    /// Adds to the integer under the key and tells the sum, which is kept until the old deadline. A missing key counts as
    /// zero.
    pub fn add(&mut self, key: &Key<'_>, increment: i64) -> Result<i64, AddError> {
        match self.lookup(key) {
            Found::Live(place) => self.edit(key, place, |entry| {
                let result = add_to(entry, increment);
                Edited { changed: result.is_ok(), result }
            }),
            found => {
                self.store_value(key, found, Expiry::None, None, Value::Integer(increment));
                self.changed(key, 1);
                Ok(increment)
            }
        }
    }

    fn change_big_string<R>(&mut self, key: &Key<'_>, place: Place, change: impl FnOnce(&mut StringMut<'_>) -> R) -> R {
        self.edit(key, place, |entry| {
            let ValueMut::Big(string) = entry.value_mut() else { unreachable!("the caller has looked") };
            let mut string = StringMut::new(string.make_unique());
            let result = change(&mut string);
            Edited { changed: string.is_changed(), result }
        })
    }

    /// Changes a string that lies in its entry, or is not there yet, in a buffer beside it.
    fn change_short_string<R>(
        &mut self,
        key: &Key<'_>,
        found: Found,
        change: impl FnOnce(&mut StringMut<'_>) -> R,
    ) -> R {
        let mut buffer = std::mem::take(&mut self.shard_mut(key).scratch);
        self.copy_short_string(key, found, &mut buffer);
        let mut string = StringMut::new(&mut buffer);
        let result = change(&mut string);
        if string.is_changed() {
            self.store_value(key, found, Expiry::Keep, None, changed_value(&mut buffer));
            self.changed(key, 1);
        } else if let Found::Live(place) = found {
            self.keep_as_changed(key, place, &mut buffer);
        }
        self.shard_mut(key).scratch = buffer;
        result
    }

    /// A string that was opened for a change and not changed stays what it is, but is kept as one that was changed in
    /// place: `OBJECT ENCODING` tells, in Redis too.
    fn keep_as_changed(&mut self, key: &Key<'_>, place: Place, bytes: &mut Vec<u8>) {
        self.shard_mut(key).edit(key, place, |entry| {
            if !matches!(entry.value(), ValueView::Short { raw: true, .. }) {
                entry.overwrite(&entry.meta(), changed_value(bytes));
            }
        });
    }

    /// Fills the buffer with what is there.
    fn copy_short_string(&mut self, key: &Key<'_>, found: Found, buffer: &mut Vec<u8>) {
        buffer.clear();
        let Found::Live(place) = found else { return };
        if let Some(string) = StringRef::of(self.shard(key).entry(key, place).value()) {
            string.append_to(buffer);
        }
    }
}

/// Why nothing was added to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// It is no string.
    WrongType,
    /// It is a string that is no integer.
    NotAnInteger,
    /// The sum is no 64-bit integer.
    Overflow,
}

impl std::fmt::Display for AddError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AddError::WrongType => WrongType.fmt(f),
            AddError::NotAnInteger => f.write_str("the string is no integer"),
            AddError::Overflow => f.write_str("the sum is no 64-bit integer"),
        }
    }
}

impl std::error::Error for AddError {}

#[inline]
fn add_to(entry: &mut Entry, increment: i64) -> Result<i64, AddError> {
    let number = match entry.value() {
        ValueView::Integer(number) => number,
        ValueView::Short { bytes, .. } => parse_integer(bytes).ok_or(AddError::NotAnInteger)?,
        ValueView::Big(_) => return Err(AddError::NotAnInteger),
        ValueView::Absent | ValueView::CompactHash(_) | ValueView::HashTable(_) => return Err(AddError::WrongType),
    };
    let sum = number.checked_add(increment).ok_or(AddError::Overflow)?;
    entry.set_integer(sum);
    Ok(sum)
}
