use proptest::prelude::*;

use super::*;
use crate::compact::Buffer;
use crate::hash::FieldTable;
use crate::string::BigString;

fn metas() -> impl Strategy<Value = Meta> {
    let fill = (0..1i64 << 47, any::<u16>(), prop_oneof![Just(0), any::<u32>()], prop::option::of(any::<u32>()));
    let fill = fill.prop_map(|(filled_at, group, stale_for_ms, refresh_after)| FillInfo {
        filled_at,
        group,
        stale_for_ms,
        refresh_at: refresh_after.map(|after| filled_at + i64::from(after)),
    });
    (any::<u32>(), prop::option::of(any::<i64>()), prop::option::of(fill)).prop_map(|(access, deadline, fill)| Meta {
        access,
        deadline,
        fill,
    })
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        // Where lengths no longer fit in the header.
        prop::collection::vec(any::<u8>(), SHORT_LENGTH - 2..SHORT_LENGTH + 3),
        prop::collection::vec(any::<u8>(), 0..most),
    ]
}

/// A value to make and to compare with.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Absent,
    Integer(i64),
    Short(Vec<u8>, bool),
    Big(Vec<u8>),
    CompactHash(Vec<u8>),
    HashTable(usize),
}

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Absent),
        any::<i64>().prop_map(Content::Integer),
        (bytes(1024), any::<bool>()).prop_map(|(bytes, raw)| Content::Short(bytes, raw)),
        bytes(3000).prop_map(Content::Big),
        bytes(1024).prop_map(Content::CompactHash),
        (0..5usize).prop_map(Content::HashTable),
    ]
}

impl Content {
    fn value(&self) -> Value<'_> {
        match self {
            Content::Absent => Value::Absent,
            Content::Integer(number) => Value::Integer(*number),
            Content::Short(bytes, raw) => Value::Short { bytes, raw: *raw },
            Content::Big(bytes) => Value::Big(Box::new(BigString::Unique(bytes.clone()))),
            Content::CompactHash(bytes) => Value::CompactHash(bytes),
            Content::HashTable(fields) => Value::HashTable(Box::new(table_with(*fields))),
        }
    }

    /// The bytes in the value's place.
    fn len(&self) -> usize {
        match self {
            Content::Absent => 0,
            Content::Integer(_) | Content::Big(_) | Content::HashTable(_) => 8,
            Content::Short(bytes, _) | Content::CompactHash(bytes) => bytes.len(),
        }
    }

    fn of(entry: &Entry) -> Content {
        match entry.value() {
            ValueView::Absent => Content::Absent,
            ValueView::Integer(number) => Content::Integer(number),
            ValueView::Short { bytes, raw } => Content::Short(bytes.to_vec(), raw),
            ValueView::Big(BigString::Unique(bytes)) => Content::Big(bytes.clone()),
            ValueView::Big(_) => panic!("only owned buffers were put in"),
            ValueView::CompactHash(hash) => Content::CompactHash(hash.sequence().to_vec()),
            ValueView::HashTable(table) => Content::HashTable(table.len()),
        }
    }
}

fn table_with(fields: usize) -> FieldTable {
    let mut table = FieldTable::new(crate::key::HashSeed::new(0));
    for field in 0..fields {
        table.insert(&[field as u8], b"value");
    }
    table
}

fn check(entry: &Entry, key: &[u8], meta: &Meta, content: &Content) {
    assert_eq!(entry.key(), key);
    assert!(entry.is_of(key) && !entry.is_of(&[key, b"x"].concat()));
    assert!(key.len().checked_sub(1).is_none_or(|shorter| !entry.is_of(&key[..shorter])));
    for at in [0, key.len() / 2, key.len().saturating_sub(1)].into_iter().filter(|at| *at < key.len()) {
        let mut other = key.to_vec();
        other[at] ^= 1;
        assert!(!entry.is_of(&other));
    }
    assert_eq!(entry.meta(), *meta);
    assert_eq!(entry.deadline(), meta.deadline);
    assert_eq!(Content::of(entry), *content);
    let object = match content {
        Content::Big(bytes) => BigString::Unique(bytes.clone()).allocated(),
        Content::HashTable(fields) => table_with(*fields).allocated(None),
        _ => 0,
    };
    let fixed = 8 + if key.len() > 255 { 4 } else { 0 } + key.len();
    let fields = meta.deadline.map_or(0, |_| 8) + meta.fill.map_or(0, |fill| 8 + filled_len(&fill));
    let value = content.len() + if content.len() > 255 { 4 } else { 0 };
    assert_eq!(entry.allocated(None), crate::allocated_size(fixed + fields + value) + object);
    let stale_for = meta.fill.map_or(0, |fill| i64::from(fill.stale_for_ms));
    assert_eq!(entry.dead_at(), meta.deadline.map(|deadline| deadline.saturating_add(stale_for)));
}

fn filled_len(fill: &FillInfo) -> usize {
    4 * (usize::from(fill.stale_for_ms > 0) + usize::from(fill.refresh_at.is_some()))
}

#[derive(Clone, Debug)]
enum Change {
    Overwrite(Meta, Content),
    Deadline(Option<i64>),
    Access(u32),
    ClearFill,
    Rename(Vec<u8>),
    Duplicate,
    SetInteger(i64),
    Splice { at: prop::sample::Index, removed: prop::sample::Index, parts: Vec<Vec<u8>> },
    Write { at: prop::sample::Index, byte: u8 },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (metas(), contents()).prop_map(|(meta, content)| Change::Overwrite(meta, content)),
        1 => any::<Option<i64>>().prop_map(Change::Deadline),
        1 => any::<u32>().prop_map(Change::Access),
        1 => Just(Change::ClearFill),
        1 => bytes(300).prop_map(Change::Rename),
        1 => Just(Change::Duplicate),
        1 => any::<i64>().prop_map(Change::SetInteger),
        4 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(bytes(60), 0..4))
            .prop_map(|(at, removed, parts)| Change::Splice { at, removed, parts }),
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Write { at, byte }),
    ];
    prop::collection::vec(change, 0..12)
}

proptest! {
    #[test]
    fn gives_back_what_was_put_in(key in bytes(20_000), meta in metas(), content in contents(), changes in changes()) {
        let (mut key, mut meta, mut content) = (key, meta, content);
        let mut entry = Entry::new(&key, &meta, content.value());
        check(&entry, &key, &meta, &content);
        for change in changes {
            match change {
                Change::Overwrite(new_meta, new_content) => {
                    entry.overwrite(&new_meta, new_content.value());
                    (meta, content) = (new_meta, new_content);
                }
                Change::Deadline(deadline) => {
                    entry.set_deadline(deadline);
                    meta.deadline = deadline;
                }
                Change::Access(access) => {
                    entry.set_access(access);
                    meta.access = access;
                }
                Change::ClearFill => {
                    entry.clear_fill();
                    meta.fill = None;
                }
                Change::Rename(new_key) => {
                    entry = entry.renamed(&new_key);
                    key = new_key;
                }
                Change::Duplicate if !matches!(content, Content::Big(_)) => entry = entry.duplicate(&meta),
                Change::Duplicate => {}
                Change::SetInteger(number) => {
                    entry.set_integer(number);
                    content = Content::Integer(number);
                }
                Change::Splice { at, removed, parts } => {
                    let (Content::CompactHash(model), ValueMut::CompactHash(mut embedded)) =
                        (&mut content, entry.value_mut())
                    else {
                        continue;
                    };
                    let at = at.index(model.len() + 1);
                    let end = at + removed.index(model.len() - at + 1);
                    embedded.splice(at..end, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    model.splice(at..end, parts.concat());
                }
                Change::Write { at, byte } => {
                    let (Content::CompactHash(model), ValueMut::CompactHash(mut embedded)) =
                        (&mut content, entry.value_mut())
                    else {
                        continue;
                    };
                    if !model.is_empty() {
                        let at = at.index(model.len());
                        embedded.write(at, &[byte]);
                        model[at] = byte;
                    }
                }
            }
            check(&entry, &key, &meta, &content);
        }
    }
}

#[test]
fn a_refresh_is_told_once() {
    let fill = FillInfo { filled_at: 1_000, group: 7, stale_for_ms: 0, refresh_at: Some(5_000) };
    let mut entry = Entry::new(b"key", &Meta { fill: Some(fill), ..Meta::default() }, Value::Integer(1));
    assert!(!entry.tell_refresh_due(4_999));
    assert!(entry.tell_refresh_due(5_000));
    assert!(!entry.tell_refresh_due(6_000));
    assert_eq!(entry.fill(), Some(fill));
}

#[test]
fn a_refresh_too_far_ahead_comes_sooner() {
    let fill = FillInfo { filled_at: 1_000, group: 7, stale_for_ms: 3, refresh_at: Some(i64::MAX) };
    let entry = Entry::new(b"key", &Meta { fill: Some(fill), ..Meta::default() }, Value::Absent);
    let refresh_at = entry.fill().and_then(|fill| fill.refresh_at);
    assert_eq!(refresh_at, Some(1_000 + i64::from(u32::MAX)));
}

#[test]
fn a_small_entry_fits_in_32_bytes() {
    let value = Value::Short { bytes: b"12345678", raw: false };
    assert_eq!(Entry::new(b"user:1234567890", &Meta::default(), value).allocated(None), 32);
}
