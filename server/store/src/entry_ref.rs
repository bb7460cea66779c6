//! Values and entries as they are seen from outside.

use crate::UnixMillis;
use crate::entry::{Entry, FillInfo, ValueView};
use crate::eviction::Moment;
use crate::hash::HashRef;
use crate::object_type::{Encoding, ObjectType};
use crate::settings::Settings;
use crate::string::StringRef;

/// A value in the store.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    /// A string.
    String(StringRef<'a>),
    /// A hash.
    Hash(HashRef<'a>),
}

impl<'a> ValueRef<'a> {
    /// `None` if it is absent.
    #[inline]
    pub(crate) fn of(value: ValueView<'a>) -> Option<Self> {
        match value {
            ValueView::Absent => None,
            ValueView::CompactHash(_) | ValueView::HashTable(_) => HashRef::of(value).map(ValueRef::Hash),
            ValueView::Integer(_) | ValueView::Short { .. } | ValueView::Big(_) => {
                StringRef::of(value).map(ValueRef::String)
            }
        }
    }

    /// Its type.
    pub fn object_type(&self) -> ObjectType {
        match self {
            ValueRef::String(_) => ObjectType::String,
            ValueRef::Hash(_) => ObjectType::Hash,
        }
    }

    /// How it is kept.
    pub fn encoding(&self) -> Encoding {
        match self {
            ValueRef::String(string) => string.encoding(),
            ValueRef::Hash(hash) => hash.encoding(),
        }
    }
}

/// An entry, looked at without being used.
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    entry: &'a Entry,
    index_share: usize,
    settings: &'a Settings,
    now: UnixMillis,
}

impl<'a> EntryRef<'a> {
    pub(crate) fn new(entry: &'a Entry, index_share: usize, settings: &'a Settings, now: UnixMillis) -> Self {
        EntryRef { entry, index_share, settings, now }
    }

    /// Its value.
    pub fn value(&self) -> ValueRef<'a> {
        ValueRef::of(self.entry.value()).expect("absent entries are not shown")
    }

    /// Its value's type.
    pub fn object_type(&self) -> ObjectType {
        self.value().object_type()
    }

    /// How its value is kept.
    pub fn encoding(&self) -> Encoding {
        self.value().encoding()
    }

    /// Where it lies in memory, for those who watch whether it moves.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self.entry).addr()
    }

    /// When it expires.
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.entry.deadline()
    }

    /// Where it came from, if the origin filled it and no client has changed it since.
    pub fn fill(&self) -> Option<FillInfo> {
        self.entry.fill()
    }

    /// Whole seconds since it was last used; `None` under the LFU policies, which do not remember.
    pub fn idle_seconds(&self) -> Option<u64> {
        self.settings.policy().idle_seconds(self.entry.access(), self.now)
    }

    /// The logarithmic counter of its uses; `None` but under the LFU policies.
    pub fn frequency(&self) -> Option<u8> {
        let moment = Moment { now: self.now, settings: self.settings, number: 0 };
        self.settings.policy().frequency(self.entry.access(), &moment)
    }

    /// The bytes that the entry takes: what the allocator has set aside for it and its value, and its share of the
    /// index. Of a large collection as many elements are looked at as `samples` says, all of them for `None`.
    pub fn memory_usage(&self, samples: Option<usize>) -> usize {
        self.entry.allocated(samples) + self.index_share
    }
}
