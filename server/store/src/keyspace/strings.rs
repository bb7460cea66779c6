//! Strings, as commands use them.

use bytes::Bytes;

use super::writes::Edited;
use super::{AddError, Expiry, Keyspace, Unknown, UpdateError, WrongType};
use crate::entry::{Entry, Value, ValueMut, ValueView};
use crate::entry_ref::ValueRef;
use crate::integer::parse_integer;
use crate::key::Key;
use crate::string::{StringMut, StringRef, changed_value, compact_shared, compact_value, text_value};

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
    ) -> Result<Option<R>, UpdateError> {
        let mut buffer = std::mem::take(&mut self.shard_mut(key).scratch);
        let edited = self.edit_live(key, change, |entry, change| match entry.value() {
            ValueView::Absent | ValueView::CompactHash(_) | ValueView::HashTable(_) => {
                Edited { changed: false, result: Err(UpdateError::WrongType) }
            }
            ValueView::Big(_) => change_big(entry, change).map(Ok),
            ValueView::Integer(_) | ValueView::Short { .. } => change_short(entry, &mut buffer, change).map(Ok),
        });
        let result = match edited {
            Ok(result) => result.map(Some),
            Err(_) if !create => self.expect_known(key).map(|()| None).map_err(UpdateError::from),
            Err(change) => self.create_string(key, &mut buffer, change).map(Some).map_err(UpdateError::from),
        };
        self.shard_mut(key).scratch = buffer;
        result
    }

    /// Adds to the integer under the key and tells the sum, which is kept until the old deadline. A missing key counts as
    /// zero.
    pub fn add(&mut self, key: &Key<'_>, increment: i64) -> Result<i64, AddError> {
        let edited = self.edit_live(key, increment, |entry, increment| {
            let result = add_to(entry, increment);
            Edited { changed: result.is_ok(), result }
        });
        edited.unwrap_or_else(|first| Ok(self.start_counting(key, first)?))
    }

    /// Sets a key without a live entry to a number, as the sum of that and nothing.
    #[cold]
    fn start_counting(&mut self, key: &Key<'_>, first: i64) -> Result<i64, Unknown> {
        let found = self.find_to_create(key)?;
        self.store_value(key, found, Expiry::None, None, Value::Integer(first));
        self.changed(key, 1);
        Ok(first)
    }

    /// Puts a string together in the buffer, where there is no live entry.
    fn create_string<R>(
        &mut self,
        key: &Key<'_>,
        buffer: &mut Vec<u8>,
        change: impl FnOnce(&mut StringMut<'_>) -> R,
    ) -> Result<R, Unknown> {
        let found = self.find_to_create(key)?;
        buffer.clear();
        let mut string = StringMut::new(buffer);
        let result = change(&mut string);
        if string.is_changed() {
            self.store_value(key, found, Expiry::None, None, changed_value(buffer));
            self.changed(key, 1);
        }
        Ok(result)
    }
}

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

fn change_big<R>(entry: &mut Entry, change: impl FnOnce(&mut StringMut<'_>) -> R) -> Edited<R> {
    let ValueMut::Big(string) = entry.value_mut() else { unreachable!("the caller has looked") };
    let mut string = StringMut::new(string.make_unique());
    let result = change(&mut string);
    Edited { changed: string.is_changed(), result }
}

/// Changes a string that lies in its entry, in a buffer beside it. One that was opened for a change and not changed
/// stays what it is, but is kept as one that was changed in place: `OBJECT ENCODING` tells, in Redis too.
fn change_short<R>(entry: &mut Entry, buffer: &mut Vec<u8>, change: impl FnOnce(&mut StringMut<'_>) -> R) -> Edited<R> {
    buffer.clear();
    if let Some(string) = StringRef::of(entry.value()) {
        string.append_to(buffer);
    }
    let mut string = StringMut::new(buffer);
    let result = change(&mut string);
    let changed = string.is_changed();
    if changed || !matches!(entry.value(), ValueView::Short { raw: true, .. }) {
        entry.overwrite(&entry.meta(), changed_value(buffer));
    }
    Edited { changed, result }
}
