//! CLIENT KILL.

use std::sync::Arc;

use super::super::call::{Call, Flow};
use super::super::error::CommandError;
use super::list::ClientType;
use crate::clients::{Client, ClientId};

/// Which connections are to end: those that every filter describes.
#[derive(Default)]
struct Filters {
    id: Option<ClientId>,
    class: Option<ClientType>,
    address: Option<String>,
    local_address: Option<String>,
    user: Option<String>,
    spares_caller: bool,
}

pub(super) fn kill(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let by_address_alone = call.args.len() == 3;
    let filters = match by_address_alone {
        true => Filters { address: Some(call.text(2)), ..Filters::default() },
        false => Filters::parse(call)?,
    };
    let caller = call.session.client.id;
    let doomed: Vec<Arc<Client>> =
        call.node.clients.all().into_iter().filter(|client| filters.select(client, caller)).collect();
    let kills_itself = doomed.iter().any(|client| client.id == caller);
    for client in doomed.iter().filter(|client| client.id != caller) {
        call.node.clients.kill(client);
    }
    match (by_address_alone, doomed.len()) {
        (false, killed) => call.reply.integer(killed as i64),
        (true, 0) => return Err(CommandError::text("ERR No such client")),
        (true, _) => call.reply.ok(),
    }
    // The caller is told before its own connection ends.
    Ok(if kills_itself { Flow::Close } else { Flow::Continue })
}

impl Filters {
    fn parse(call: &Call<'_>) -> Result<Filters, CommandError> {
        let mut filters = Filters { spares_caller: true, ..Filters::default() };
        for at in (2..call.args.len()).step_by(2) {
            if at + 1 == call.args.len() {
                return Err(CommandError::Syntax);
            }
            filters.add(call, at)?;
        }
        Ok(filters)
    }

    /// Adds the filter at argument `at`, whose value is the next one.
    fn add(&mut self, call: &Call<'_>, at: usize) -> Result<(), CommandError> {
        if call.is(at, "id") {
            self.id = Some(parse_id(call, at + 1)?);
        } else if call.is(at, "type") {
            self.class = Some(ClientType::parse(call, at + 1)?);
        } else if call.is(at, "addr") {
            self.address = Some(call.text(at + 1));
        } else if call.is(at, "laddr") {
            self.local_address = Some(call.text(at + 1));
        } else if call.is(at, "user") {
            self.user = Some(known_user(call, at + 1)?);
        } else if call.is(at, "skipme") && (call.is(at + 1, "yes") || call.is(at + 1, "no")) {
            self.spares_caller = call.is(at + 1, "yes");
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }

    fn select(&self, client: &Client, caller: ClientId) -> bool {
        self.id.is_none_or(|id| id == client.id)
            && self.class.is_none_or(|class| class == ClientType::of(client))
            && self.address.as_ref().is_none_or(|address| *address == client.peer.to_string())
            && self.local_address.as_ref().is_none_or(|address| *address == client.local.to_string())
            && self.user.as_ref().is_none_or(|user| *user == client.labels.lock().user)
            && !(self.spares_caller && client.id == caller)
    }
}

fn parse_id(call: &Call<'_>, at: usize) -> Result<ClientId, CommandError> {
    call.integer(at)
        .ok()
        .and_then(|id| ClientId::try_from(id).ok())
        .filter(|&id| id > 0)
        .ok_or(CommandError::text("ERR client-id should be greater than 0"))
}

/// There is one user so far.
fn known_user(call: &Call<'_>, at: usize) -> Result<String, CommandError> {
    match call.arg(at) {
        b"default" => Ok("default".to_owned()),
        _ => Err(CommandError::from(format!("ERR No such user '{}'", call.text(at)))),
    }
}
