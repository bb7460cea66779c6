//! The connection itself: who is there, in which protocol, on which database.

use std::sync::atomic::Ordering::Relaxed;

use forebay_resp::Protocol;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};
use crate::identity::REDIS_VERSION;
use crate::session::Replies;

/// What every connection may do at any time, even before it is authenticated and while data is loading.
const ALWAYS: Flags = Flags::NOSCRIPT
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::FAST)
    .union(Flags::NO_AUTH)
    .union(Flags::ALLOW_BUSY);

pub(super) const TABLE: &[Spec] = &[
    Spec::new("auth", -2, ALWAYS, Categories::CONNECTION).on_node(auth).docs(
        "connection",
        "1.0.0",
        "O(N), N being the number of passwords of the user",
        "Authenticates the connection.",
        "[username] password",
    ),
    Spec::new("echo", 2, Flags::LOADING.union(Flags::STALE).union(Flags::FAST), Categories::CONNECTION)
        .on_node(echo)
        .docs("connection", "1.0.0", "O(1)", "Answers its argument.", "message"),
    Spec::new("hello", -1, ALWAYS, Categories::CONNECTION).on_node(hello).docs(
        "connection",
        "6.0.0",
        "O(1)",
        "Agrees on a protocol version with the server.",
        "[protover [AUTH username password] [SETNAME clientname]]",
    ),
    Spec::new("ping", -1, Flags::FAST, Categories::CONNECTION)
        .on_node(ping)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("connection", "1.0.0", "O(1)", "Answers PONG, or its argument.", "[message]"),
    Spec::new("quit", -1, ALWAYS, Categories::CONNECTION)
        .on_node(quit)
        .deprecated("7.2.0", "closing the connection")
        .docs("connection", "1.0.0", "O(1)", "Closes the connection.", ""),
    Spec::new("reset", 1, ALWAYS, Categories::CONNECTION).on_node(reset).docs(
        "connection",
        "6.2.0",
        "O(1)",
        "Takes the connection back to the state of a new one.",
        "",
    ),
    Spec::new("select", 2, Flags::LOADING.union(Flags::STALE).union(Flags::FAST), Categories::CONNECTION)
        .on_node(select)
        .docs("connection", "1.0.0", "O(1)", "Changes the database of the connection.", "index"),
];

fn auth(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    match call.args.len() {
        2 if !call.node.settings.needs_password() => Err(CommandError::text(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
        2 => {
            authenticate(call, b"default", call.arg(1))?;
            call.reply.ok();
            Ok(Flow::Continue)
        }
        3 => {
            authenticate(call, call.arg(1), call.arg(2))?;
            call.reply.ok();
            Ok(Flow::Continue)
        }
        _ => Err(CommandError::Syntax),
    }
}

/// There is one user, the default one; its password is `requirepass`.
fn authenticate(call: &mut Call<'_>, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    if user != b"default" || !call.node.settings.admits(password) {
        return Err(CommandError::WrongPass);
    }
    call.session.authenticated = true;
    Ok(())
}

fn echo(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.bulk(call.arg(1));
    Ok(Flow::Continue)
}

fn ping(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    match call.args.len() {
        1 | 2 if super::pubsub::pong(call) => {}
        1 => call.reply.simple("PONG"),
        2 => call.reply.bulk(call.arg(1)),
        _ => return Err(CommandError::Arity(call.command.full_name)),
    }
    Ok(Flow::Continue)
}

fn quit(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.ok();
    Ok(Flow::Close)
}

fn reset(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    super::client::end_tracking(call);
    call.node.channels.leave(&call.session.client);
    let session = &mut *call.session;
    session.is_subscribed = false;
    session.db = 0;
    session.authenticated = !call.node.settings.needs_password();
    session.replies = Replies::On;
    session.no_touch = false;
    session.readonly = false;
    session.client.db.store(0, Relaxed);
    session.client.protocol.store(2, Relaxed);
    session.client.no_touch.store(false, Relaxed);
    session.client.no_evict.store(false, Relaxed);
    session.client.labels.lock().name.clear();
    call.reply.set_protocol(Protocol::Resp2);
    call.reply.simple("RESET");
    Ok(Flow::Continue)
}

fn select(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let db = call.database(1)?;
    call.session.db = db;
    call.session.client.db.store(db, Relaxed);
    call.reply.ok();
    Ok(Flow::Continue)
}

/// What a HELLO asks for.
#[derive(Default)]
struct Greeting<'c> {
    protocol: Option<Protocol>,
    user: Option<(&'c [u8], &'c [u8])>,
    name: Option<&'c [u8]>,
}

fn hello(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let greeting = Greeting::parse(call)?;
    if let Some((user, password)) = greeting.user {
        authenticate(call, user, password)?;
    }
    if !call.session.authenticated {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be \
             used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = greeting.name {
        super::client::set_name(call, name)?;
    }
    if let Some(protocol) = greeting.protocol {
        call.reply.set_protocol(protocol);
        call.session.client.protocol.store(version_of(protocol) as u8, Relaxed);
    }
    welcome(call);
    Ok(Flow::Continue)
}

impl<'c> Greeting<'c> {
    fn parse(call: &Call<'c>) -> Result<Greeting<'c>, CommandError> {
        let mut greeting = Greeting::default();
        if call.args.len() == 1 {
            return Ok(greeting);
        }
        greeting.protocol = Some(match forebay_store::parse_integer(call.arg(1)) {
            None => return Err(CommandError::text("ERR Protocol version is not an integer or out of range")),
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
        });
        let mut at = 2;
        while at < call.args.len() {
            let left = call.args.len() - at - 1;
            if call.is(at, "AUTH") && left >= 2 {
                greeting.user = Some((call.arg(at + 1), call.arg(at + 2)));
                at += 3;
            } else if call.is(at, "SETNAME") && left >= 1 {
                super::client::check_name(call.arg(at + 1))?;
                greeting.name = Some(call.arg(at + 1));
                at += 2;
            } else {
                return Err(CommandError::from(format!("ERR Syntax error in HELLO option '{}'", call.text(at))));
            }
        }
        Ok(greeting)
    }
}

fn version_of(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

fn welcome(call: &mut Call<'_>) {
    let reply = &mut *call.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(version_of(reply.protocol()));
    reply.bulk(b"id");
    reply.integer(call.session.client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(call.session.door.mode().as_bytes());
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}
