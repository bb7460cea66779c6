//! Subscribing to channels. There is no PUBLISH yet: what is told by a channel is what was redirected to the connection by CLIENT TRACKING.

use forebay_resp::Protocol;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};
use crate::tracking::mailbox::CHANNEL;

const ANY_TIME: Flags = Flags::PUBSUB.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);

/// What a connection may ask that speaks RESP2 and has subscribed to a channel: in RESP2 no other reply could be told from a message.
const WHILE_SUBSCRIBED: [&str; 5] = ["subscribe", "unsubscribe", "ping", "quit", "reset"];

pub(super) const TABLE: &[Spec] = &[
    Spec::new("subscribe", -2, ANY_TIME, Categories::PUBSUB).on_node(subscribe).docs(
        "pubsub",
        "2.0.0",
        "O(N) where N is the number of channels to subscribe to.",
        "Listens for what is told by channels.",
        "channel [channel ...]",
    ),
    Spec::new("unsubscribe", -1, ANY_TIME, Categories::PUBSUB).on_node(unsubscribe).docs(
        "pubsub",
        "2.0.0",
        "O(N) where N is the number of channels to unsubscribe.",
        "Stops listening for what is told by channels, or by any.",
        "[channel [channel ...]]",
    ),
];

/// Refuses what a connection that has subscribed must not ask.
///
/// # Errors
/// Says what it may ask.
pub fn check_while_subscribed(speaks_resp2: bool, command: &str) -> Result<(), CommandError> {
    match speaks_resp2 && !WHILE_SUBSCRIBED.contains(&command) {
        true => Err(CommandError::from(format!(
            "ERR Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        ))),
        false => Ok(()),
    }
}

fn subscribe(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if let Some(other) = call.args.iter().skip(1).find(|channel| *channel != CHANNEL.as_bytes()) {
        return Err(CommandError::from(format!(
            "ERR nothing is ever published to '{}': without PUBLISH, the only channel is '{CHANNEL}'",
            String::from_utf8_lossy(other)
        )));
    }
    for channel in call.args.iter().skip(1) {
        let count = call.node.channels.subscribe(&call.session.client, channel);
        tell(call, b"subscribe", Some(channel), count);
    }
    call.session.is_subscribed = true;
    Ok(Flow::Continue)
}

fn unsubscribe(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let own: Vec<Box<[u8]>> = match call.args.len() {
        1 => call.session.client.subscriptions.lock().iter().cloned().collect(),
        _ => call.args.iter().skip(1).map(Box::from).collect(),
    };
    for channel in &own {
        let count = call.node.channels.unsubscribe(&call.session.client, channel);
        tell(call, b"unsubscribe", Some(channel), count);
    }
    if own.is_empty() {
        tell(call, b"unsubscribe", None, 0);
    }
    call.session.is_subscribed = call.session.client.is_subscribed();
    Ok(Flow::Continue)
}

fn tell(call: &mut Call<'_>, what: &[u8], channel: Option<&[u8]>, count: usize) {
    call.reply.push(3);
    call.reply.bulk(what);
    match channel {
        Some(channel) => call.reply.bulk(channel),
        None => call.reply.null(),
    }
    call.reply.integer(count as i64);
}

/// PING of a connection that has subscribed and speaks RESP2.
pub(super) fn pong(call: &mut Call<'_>) -> bool {
    let is_meant = call.session.is_subscribed && call.reply.protocol() == Protocol::Resp2;
    if is_meant {
        call.reply.array(2);
        call.reply.bulk(b"pong");
        call.reply.bulk(call.args.get(1).unwrap_or_default());
    }
    is_meant
}
