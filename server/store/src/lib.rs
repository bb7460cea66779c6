//! The memory of Forebay: keys with values and deadlines, in slots, behind the locks of shards.
//!
//! It knows no clock, network or command: time is an argument, slots are the caller's, and a command works on a
//! [`Keyspace`], a locked view of the shards that its keys live in.
//!
//! ```
//! use forebay_store::{Expiry, Store, StoreConfig};
//!
//! let store = Store::new(StoreConfig::default());
//! let (slot, now) = (42, 1_700_000_000_000);
//! let key = store.key(0, slot, b"greeting");
//! store.lock(slot, now).set_string(&key, b"hello", Expiry::At(now + 60_000));
//!
//! let mut keyspace = store.lock(slot, now + 1);
//! let mut scratch = Vec::new();
//! let greeting = keyspace.read_string(&key).unwrap().unwrap();
//! assert_eq!(greeting.as_bytes(&mut scratch), b"hello");
//! ```

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

mod allocation;
mod compact;
mod compaction;
mod counters;
mod database;
mod digest;
mod encoded;
mod entry;
mod entry_ref;
mod eviction;
mod expiry;
mod garbage;
mod hash;
mod integer;
mod key;
mod keyspace;
mod loads;
mod locking;
mod object_type;
mod placement;
mod prefetch;
mod random;
mod same_bytes;
mod settings;
mod shard;
mod store;
mod string;
mod table;
mod varint;
mod walk;
mod watch;

pub use allocation::{allocated_layout, allocated_size, natural_alignment};
pub use compaction::{Compaction, CompactionStep};
pub use counters::StoreCounters;
pub use database::KEPT;
pub use digest::DigestLimits;
pub use encoded::Malformed;
pub use entry::FillInfo;
pub use entry_ref::{EntryRef, ValueRef};
pub use eviction::{EvictStep, EvictionPolicy, Onlooker, UnknownPolicy};
pub use expiry::{ExpireStep, ExpiryShare};
pub use garbage::Garbage;
pub use hash::{HashMut, HashRef, Pairs};
pub use integer::{LONGEST_INTEGER, parse_integer};
pub use key::Key;
pub use keyspace::{
    Access, AddError, Expiry, Fill, FillOutcome, FillValue, Keyspace, OwnedEntry, Presence, SlotCursor, Stamp, Stored,
    Unknown, UpdateError, WrongType,
};
pub use loads::Fence;
pub use object_type::{Encoding, ObjectType};
pub use placement::SLOTS;
pub use prefetch::MAX_PREFETCHED;
pub use settings::Settings;
pub use store::{Store, StoreConfig};
pub use string::{StringMut, StringRef, StringView};
pub use table::CURSOR_BITS;
pub use watch::Watcher;

/// Milliseconds since 1970-01-01 00:00 UTC.
pub type UnixMillis = i64;
