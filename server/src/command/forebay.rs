//! FOREBAY.*: what only a read-through cache can be asked.

use std::time::Instant;

use forebay_cluster::{Node, SLOT_COUNT};
use forebay_origin::{Rules, Xid};
use forebay_resp::Reply;
use forebay_store::{Access, Key, Keyspace, Presence};

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Merge, Spec};
use crate::freshness::{self, Recollection, Told};
use crate::writes::behind;

/// What nodes ask each other, and no client.
const OF_NODES: Flags = Flags::FAST.union(Flags::INTERNAL);

pub(super) const TABLE: &[Spec] = &[
    Spec::new(
        "forebay.changed",
        -4,
        OF_NODES.union(Flags::WRITE).union(Flags::HELD_BY_ALL).union(Flags::CACHE_ONLY),
        Categories::KEYSPACE,
    )
    .keys(&[KeySpec::range(KeyUse::RM.union(KeyUse::DELETE), 3, -1, 1)])
    .on_keys(changed)
    .split(Merge::Sum)
    .docs(
        "generic",
        "7.2.0",
        "O(N), N being the number of keys",
        "The database has changed keys.",
        "transaction unix-time-microseconds key [key ...]",
    ),
    Spec::new("forebay.explain", 2, Flags::READONLY.union(Flags::FAST), Categories::KEYSPACE)
        .keys(&[KeySpec::one(KeyUse::RO)])
        .on_keys(explain)
        .tips(&["nondeterministic_output"])
        .docs(
            "generic",
            "7.2.0",
            "O(1)",
            "Tells why a key has the value that it has: owner, group, query, age and deadlines.",
            "key",
        ),
    Spec::new("forebay.groups", 1, Flags::READONLY, Categories::ADMIN.union(Categories::DANGEROUS))
        .on_node(groups)
        .docs(
            "server",
            "7.2.0",
            "O(N), N being the number of groups",
            "Lists the groups with their patterns, queries and counters.",
            "",
        ),
    Spec::new("forebay.invalidate", -2, Flags::WRITE.union(Flags::FAST).union(Flags::CACHE_ONLY), Categories::KEYSPACE)
        .keys(&[KeySpec::range(KeyUse::RM.union(KeyUse::DELETE), 1, -1, 1)])
        .on_keys(invalidate)
        .split(Merge::Sum)
        .docs(
            "generic",
            "7.2.0",
            "O(N), N being the number of keys",
            "Takes keys out of the cache, known absence included, so that the next read asks the origin.",
            "key [key ...]",
        ),
    Spec::new(
        "forebay.pending",
        3,
        OF_NODES.union(Flags::WRITE).union(Flags::HELD_BY_ALL).union(Flags::CACHE_ONLY),
        Categories::KEYSPACE,
    )
    .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE))])
    .on_keys(pending)
    .docs(
        "generic",
        "7.2.0",
        "O(1)",
        "A write was left in a journal: 1 if it is to be made, 2 if it has been.",
        "key record",
    ),
    Spec::new("forebay.reached", 2, OF_NODES.union(Flags::READONLY), Categories::empty())
        .on_node(reached)
        .everywhere(Merge::AllOk)
        .docs("cluster", "7.2.0", "O(1)", "Tells whether this is known of what was agreed on.", "epoch"),
    Spec::new("forebay.topology", 1, Flags::READONLY.union(Flags::LOADING).union(Flags::STALE), Categories::empty())
        .on_node(topology)
        .docs(
            "cluster",
            "7.2.0",
            "O(N), N being the number of nodes",
            "Tells the epoch, what is on the move, and the members.",
            "",
        ),
];

fn explain(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    keyspace.set_access(Access { allow_stale: true, ..keyspace.access() });
    let mut facts = Facts::new();
    facts.place(call, key);
    facts.entry(call, keyspace, key);
    facts.history(call, key);
    facts.write(call.reply);
    Ok(())
}

/// What EXPLAIN answers: names and values in the order in which they were found.
struct Facts(Vec<(&'static str, Fact)>);

enum Fact {
    Text(String),
    Number(i64),
}

impl Facts {
    fn new() -> Facts {
        Facts(Vec::new())
    }

    fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, Fact::Text(value.into())));
    }

    fn number(&mut self, name: &'static str, value: i64) {
        self.0.push((name, Fact::Number(value)));
    }

    /// Who is responsible for the key, and what would load it.
    fn place(&mut self, call: &Call<'_>, key: &Key<'_>) {
        let topology = call.node.topology.load();
        self.number("slot", i64::from(key.slot()));
        self.text("owner", topology.owner_of(key.slot()).map_or("", |owner| owner.id.as_str()));
        let replicas: Vec<&str> = topology.replicas(key.slot()).map(|node| node.id.as_str()).collect();
        self.text("replicas", replicas.join(" "));
        self.number("epoch", topology.epoch() as i64);
        let Some(origin) = call.node.origin.as_ref().filter(|_| call.session.db == 0) else {
            return;
        };
        if let Some(Rules { group, .. }) = origin.groups().rules_of(key.bytes()) {
            self.text("group", group.name.as_str());
            self.text("as", group.as_.as_str());
            self.text("query", group.load.as_str());
            if let Some(many) = &group.load_many {
                self.text("query_for_many", many.as_str());
            }
        }
    }

    /// What is stored under the key.
    fn entry(&mut self, call: &Call<'_>, keyspace: &mut Keyspace<'_>, key: &Key<'_>) {
        let state = match keyspace.presence(key) {
            Presence::Present => "present",
            Presence::Absent => "absent at the origin",
            Presence::Missing => "missing",
        };
        self.text("state", state);
        let now = call.now;
        let Some(entry) = keyspace.peek(key) else {
            return;
        };
        self.text("type", entry.object_type().as_str());
        self.number("bytes", entry.memory_usage(None) as i64);
        self.text("written_by", if entry.fill().is_some() { "origin" } else { "client" });
        if let Some(deadline) = entry.deadline() {
            self.number("expires_in_ms", deadline - now);
        }
        if let Some(fill) = entry.fill() {
            self.number("age_ms", now - fill.filled_at);
            self.number("stale_for_ms", i64::from(fill.stale_for_ms));
            if let Some(refresh_at) = fill.refresh_at {
                self.number("refresh_in_ms", refresh_at - now);
            }
        }
    }

    /// What is remembered of loads and changes of the key.
    fn history(&mut self, call: &Call<'_>, key: &Key<'_>) {
        let Recollection { loaded, changed, has_floor } =
            call.node.freshness.memory.recall(key.slot(), key.bytes(), Instant::now());
        if let Some(snapshot) = loaded {
            self.text("loaded_by_snapshot", snapshot.to_string());
        }
        if let Some((transactions, ago)) = changed {
            let transactions: Vec<String> = transactions.iter().map(Xid::to_string).collect();
            self.text("changed_by_transactions", transactions.join(" "));
            self.number("changed_ms_ago", ago.as_millis() as i64);
        }
        self.text("older_changes", if has_floor { "forgotten" } else { "known" });
    }

    fn write(&self, reply: &mut Reply) {
        reply.map(self.0.len());
        for (name, value) in &self.0 {
            reply.bulk(name.as_bytes());
            match value {
                Fact::Text(text) => reply.bulk(text.as_bytes()),
                Fact::Number(number) => reply.integer(*number),
            }
        }
    }
}

fn changed(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let told = Told {
        xid: if call.is(1, "-") { None } else { Some(Xid(call.integer(1)? as u64)) },
        committed_at: if call.is(2, "-") { None } else { Some(call.integer(2)?) },
    };
    let dropped = call.keys.iter().filter(|key| freshness::apply(call.node, keyspace, key, told)).count();
    call.reply.integer(dropped as i64);
    Ok(())
}

fn pending(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let answer = behind::take_from_a_journal(call.node, keyspace, &call.keys[0], call.arg(2));
    call.reply.integer(answer);
    Ok(())
}

fn reached(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let epoch = call.integer(1)?;
    if (call.node.topology.load().epoch() as i64) < epoch {
        return Err(CommandError::text("CLUSTERDOWN the node is not as far"));
    }
    call.reply.simple("OK");
    Ok(Flow::Continue)
}

fn invalidate(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let removed = call.keys.iter().filter(|key| keyspace.remove(key)).count();
    call.reply.integer(removed as i64);
    Ok(())
}

fn groups(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let Some(origin) = &call.node.origin else {
        call.reply.array(0);
        return Ok(Flow::Continue);
    };
    let groups = origin.groups();
    let told = call.node.groups.told();
    call.reply.array(groups.len());
    for (group, status) in groups.with_status() {
        let mut facts = Facts::new();
        facts.number("version", groups.version() as i64);
        facts.text("name", group.name.as_str());
        facts.text("key", group.key.to_string());
        facts.text("load", group.load.as_str());
        facts.text("load_many", group.load_many.as_deref().unwrap_or_default());
        facts.text("ttl_ms", group.ttl.map_or_else(|| "none".to_owned(), |ttl| ttl.as_millis().to_string()));
        facts.number("loads", status.loads as i64);
        facts.number("queries", status.queries as i64);
        facts.number("errors", status.errors as i64);
        facts.number("waiting", status.waiting as i64);
        facts.text("fault", told.fault_of(&group.name).unwrap_or_default());
        facts.write(call.reply);
    }
    Ok(Flow::Continue)
}

/// The epoch, what is on the move, and each member with how much it holds.
fn topology(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let topology = call.node.topology.load();
    let count = |holds: &dyn Fn(u16) -> bool| (0..SLOT_COUNT).filter(|slot| holds(*slot)).count() as i64;
    call.reply.map(5);
    call.reply.bulk(b"peer_protocol");
    call.reply.integer(i64::from(forebay_cluster::PEER_PROTOCOL));
    call.reply.bulk(b"epoch");
    call.reply.integer(topology.epoch() as i64);
    call.reply.bulk(b"slots_without_owner");
    call.reply.integer(count(&|slot| topology.owner_of(slot).is_none()));
    call.reply.bulk(b"slots_syncing");
    call.reply.integer(count(&|slot| topology.syncing(slot).next().is_some()));
    call.reply.bulk(b"nodes");
    call.reply.array(topology.nodes().len());
    for node in topology.nodes() {
        let is_node = |other: &Node| other.number == node.number;
        let mut facts = Facts::new();
        facts.number("number", i64::from(node.number.0));
        facts.text("id", node.id.as_str());
        facts.text("standing", format!("{:?}", node.standing).to_lowercase());
        facts.text("host", node.host.as_str());
        facts.number("port", i64::from(node.open_port));
        facts.number("direct_port", i64::from(node.direct_port));
        facts.number("http_port", i64::from(node.http_port));
        facts.number("peer_port", i64::from(node.peer_port));
        facts.text("zone", node.zone.as_deref().unwrap_or_default());
        facts.number("slots", count(&|slot| topology.owner_of(slot).is_some_and(is_node)));
        facts.number("copies", count(&|slot| topology.replicas(slot).any(is_node)));
        facts.number("syncing", count(&|slot| topology.syncing(slot).any(is_node)));
        facts.write(call.reply);
    }
    Ok(Flow::Continue)
}
