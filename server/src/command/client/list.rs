//! CLIENT LIST and CLIENT INFO: one line for each connection.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_store::UnixMillis;

use super::super::call::{Call, Flow};
use super::super::error::CommandError;
use super::super::table::Table;
use super::tracking::redirect_of;
use crate::clients::{Ask, Client};

/// What kind of peer a connection is. There are no replicas or masters of Redis' kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientType {
    Normal,
    Replica,
    PubSub,
    Master,
}

impl ClientType {
    pub(super) fn of(client: &Client) -> ClientType {
        if client.is_subscribed() { ClientType::PubSub } else { ClientType::Normal }
    }

    /// The type that argument `at` names.
    pub(super) fn parse(call: &Call<'_>, at: usize) -> Result<ClientType, CommandError> {
        const NAMES: [(&str, ClientType); 5] = [
            ("normal", ClientType::Normal),
            ("slave", ClientType::Replica),
            ("replica", ClientType::Replica),
            ("pubsub", ClientType::PubSub),
            ("master", ClientType::Master),
        ];
        NAMES
            .iter()
            .find(|(name, _)| call.is(at, name))
            .map(|(_, class)| *class)
            .ok_or_else(|| CommandError::from(format!("ERR Unknown client type '{}'", call.text(at))))
    }
}

pub(super) fn info(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let line = Line { client: &call.session.client, now: call.now };
    let line = format!("{line}\n");
    call.reply.verbatim("txt", line.as_bytes());
    Ok(Flow::Continue)
}

pub(super) fn list(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let clients = selected(call)?;
    let lines: String = clients.iter().map(|client| format!("{}\n", Line { client, now: call.now })).collect();
    call.reply.verbatim("txt", lines.as_bytes());
    Ok(Flow::Continue)
}

fn selected(call: &Call<'_>) -> Result<Vec<Arc<Client>>, CommandError> {
    let clients = &call.node.clients;
    match call.args.len() {
        2 => Ok(clients.all()),
        4 if call.is(2, "type") => {
            let class = ClientType::parse(call, 3)?;
            Ok(clients.all().into_iter().filter(|client| ClientType::of(client) == class).collect())
        }
        4.. if call.is(2, "id") => {
            let mut found = Vec::new();
            for at in 3..call.args.len() {
                let id = call.integer(at).map_err(|_| CommandError::text("ERR Invalid client ID"))?;
                found.extend(u64::try_from(id).ok().and_then(|id| clients.get(id)));
            }
            Ok(found)
        }
        _ => Err(CommandError::Syntax),
    }
}

/// A connection as `CLIENT LIST` tells it, without the line's end. The fields and their order are Redis' own; those of machinery that
/// does not exist here are 0, or what Redis has for "none".
struct Line<'c> {
    client: &'c Client,
    now: UnixMillis,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { client, now } = self;
        let labels = client.labels.lock().clone();
        let (query, capacity) = (client.query_bytes.load(Relaxed), client.query_capacity.load(Relaxed));
        let replies = client.unsent.bytes();
        let subscriptions = client.subscriptions.lock().len();
        let redirect = redirect_of(client.tracking.lock().as_deref());
        write!(f, "id={} addr={} laddr={} fd={}", client.id, client.peer, client.local, client.descriptor)?;
        write!(f, " name={} age={}", labels.name, (now - client.connected_at) / 1000)?;
        write!(f, " idle={} flags={}", (now - client.last_request_at.load(Relaxed)) / 1000, Flags(client))?;
        write!(f, " db={} sub={subscriptions} psub=0 ssub=0 multi=-1", client.db.load(Relaxed))?;
        write!(f, " qbuf={query} qbuf-free={} argv-mem=0 multi-mem=0", capacity.saturating_sub(query))?;
        write!(f, " rbs=0 rbp=0 obl={replies} oll=0 omem=0 tot-mem={}", client.memory())?;
        write!(
            f,
            " events={} cmd={} user={}",
            if replies > 0 { "rw" } else { "r" },
            last_command(client),
            labels.user
        )?;
        write!(f, " redir={redirect} resp={}", client.protocol.load(Relaxed))?;
        write!(f, " lib-name={} lib-ver={}", labels.library_name, labels.library_version)
    }
}

fn last_command(client: &Client) -> &'static str {
    match client.last_command.load(Relaxed) {
        u32::MAX => "NULL",
        id => Table::get().name_of(id as usize),
    }
}

/// The letters for what is special about a connection; `N` when nothing is.
struct Flags<'c>(&'c Client);

impl Display for Flags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.0;
        let terms = client.tracking.lock().clone();
        let letters = [
            ('P', client.is_subscribed()),
            ('b', client.blocked.load(Relaxed)),
            ('t', terms.is_some()),
            ('R', terms.as_ref().is_some_and(|terms| terms.is_broken)),
            ('B', terms.as_ref().is_some_and(|terms| terms.is_broadcasting)),
            ('A', client.asked() == Ask::Kill),
            ('e', client.no_evict.load(Relaxed)),
            ('T', client.no_touch.load(Relaxed)),
        ];
        if !letters.iter().any(|(_, holds)| *holds) {
            return f.write_str("N");
        }
        letters.iter().filter(|(_, holds)| *holds).try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}
