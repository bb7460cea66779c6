//! One command as `COMMAND` and `COMMAND INFO` tell it.

use forebay_resp::Reply;

use super::super::spec::{Begin, Categories, Find, Flags, KeySpec, KeyUse};
use super::super::table::Command;

/// Redis' words for what it tells of the flags, in its order.
const FLAGS: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::ASKING, "asking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLE_KEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

const CATEGORIES: &[(Categories, &str)] = &[
    (Categories::KEYSPACE, "keyspace"),
    (Categories::READ, "read"),
    (Categories::WRITE, "write"),
    (Categories::SET, "set"),
    (Categories::SORTEDSET, "sortedset"),
    (Categories::LIST, "list"),
    (Categories::HASH, "hash"),
    (Categories::STRING, "string"),
    (Categories::BITMAP, "bitmap"),
    (Categories::HYPERLOGLOG, "hyperloglog"),
    (Categories::GEO, "geo"),
    (Categories::STREAM, "stream"),
    (Categories::PUBSUB, "pubsub"),
    (Categories::ADMIN, "admin"),
    (Categories::FAST, "fast"),
    (Categories::SLOW, "slow"),
    (Categories::BLOCKING, "blocking"),
    (Categories::DANGEROUS, "dangerous"),
    (Categories::CONNECTION, "connection"),
    (Categories::TRANSACTION, "transaction"),
    (Categories::SCRIPTING, "scripting"),
];

const KEY_USES: &[(KeyUse, &str)] = &[
    (KeyUse::RO, "RO"),
    (KeyUse::RW, "RW"),
    (KeyUse::OW, "OW"),
    (KeyUse::RM, "RM"),
    (KeyUse::ACCESS, "access"),
    (KeyUse::UPDATE, "update"),
    (KeyUse::INSERT, "insert"),
    (KeyUse::DELETE, "delete"),
    (KeyUse::NOT_KEY, "not_key"),
    (KeyUse::INCOMPLETE, "incomplete"),
    (KeyUse::VARIABLE_FLAGS, "variable_flags"),
];

/// The ACL category with this name, in any case.
pub(super) fn category(name: &[u8]) -> Option<Categories> {
    CATEGORIES.iter().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(category, _)| *category)
}

/// Tells everything about a command.
pub(super) fn describe(reply: &mut Reply, command: &Command) {
    let spec = command.spec;
    let (first, last, step) = spec.legacy_range();
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.integer(i64::from(spec.arity));
    statuses(reply, FLAGS.iter().filter(|(flag, _)| spec.flags.contains(*flag)).map(|(_, word)| (*word).to_owned()));
    [first, last, step].into_iter().for_each(|number| reply.integer(number));
    let categories = spec.acl_categories();
    statuses(
        reply,
        CATEGORIES.iter().filter(|(category, _)| categories.contains(*category)).map(|(_, word)| format!("@{word}")),
    );
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.keys.len());
    spec.keys.iter().for_each(|keys| key_spec(reply, keys));
    match command.subcommands.is_empty() {
        true => reply.set(0),
        false => reply.array(command.subcommands.len()),
    }
    command.subcommands.iter().for_each(|subcommand| describe(reply, subcommand));
}

/// The words for how a key is used.
pub(super) fn key_uses(reply: &mut Reply, uses: KeyUse) {
    statuses(reply, KEY_USES.iter().filter(|(known, _)| uses.contains(*known)).map(|(_, word)| (*word).to_owned()));
}

pub(super) fn statuses(reply: &mut Reply, words: impl Iterator<Item = String>) {
    let words: Vec<_> = words.collect();
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

fn key_spec(reply: &mut Reply, keys: &KeySpec) {
    reply.map(3 + usize::from(keys.notes.is_some()));
    if let Some(notes) = keys.notes {
        text(reply, "notes", notes);
    }
    reply.bulk(b"flags");
    key_uses(reply, keys.uses);
    reply.bulk(b"begin_search");
    begin(reply, keys.begin);
    reply.bulk(b"find_keys");
    find(reply, keys.find);
}

fn begin(reply: &mut Reply, begin: Begin) {
    match begin {
        Begin::Index(index) => {
            typed(reply, "index", 1);
            number(reply, "index", i64::from(index));
        }
        Begin::Keyword { word, from } => {
            typed(reply, "keyword", 2);
            text(reply, "keyword", word);
            number(reply, "startfrom", i64::from(from));
        }
    }
}

fn find(reply: &mut Reply, find: Find) {
    match find {
        Find::Range { last, step, limit } => {
            typed(reply, "range", 3);
            number(reply, "lastkey", i64::from(last));
            number(reply, "keystep", i64::from(step));
            number(reply, "limit", i64::from(limit));
        }
        Find::Count { at, first, step } => {
            typed(reply, "keynum", 3);
            number(reply, "keynumidx", i64::from(at));
            number(reply, "firstkey", i64::from(first));
            number(reply, "keystep", i64::from(step));
        }
    }
}

/// The head of a type with a specification of so many fields.
fn typed(reply: &mut Reply, kind: &str, fields: usize) {
    reply.map(2);
    text(reply, "type", kind);
    reply.bulk(b"spec");
    reply.map(fields);
}

pub(super) fn text(reply: &mut Reply, name: &str, value: &str) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

pub(super) fn number(reply: &mut Reply, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(value);
}
