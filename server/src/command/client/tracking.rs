//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR.

use bytes::Bytes;

use super::super::call::{Call, Flow};
use super::super::error::CommandError;
use crate::clients::ClientId;
use crate::tracking::{Mode, Terms, Tracks, Who};

/// The options of CLIENT TRACKING.
#[derive(Default)]
struct Options {
    redirect: ClientId,
    is_broadcasting: bool,
    opt_in: bool,
    opt_out: bool,
    is_quiet: bool,
    prefixes: Vec<Bytes>,
}

pub(super) fn tracking(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let options = Options::parse(call)?;
    if call.is(2, "off") {
        end(call);
    } else if call.is(2, "on") {
        options.check(call)?;
        begin(call, options);
        if !call.node.topology.load().is_alone() {
            return Ok(Flow::Heard);
        }
    } else {
        return Err(CommandError::Syntax);
    }
    call.reply.ok();
    Ok(Flow::Continue)
}

/// The connection tracks no more.
pub(in crate::command) fn end(call: &mut Call<'_>) {
    if call.session.tracks.take().is_some() {
        call.node.tracking.end(call.node, &call.session.client);
    }
}

fn begin(call: &mut Call<'_>, options: Options) {
    let client = &call.session.client;
    let before = call.session.tracks();
    let mode = match (options.is_broadcasting, options.opt_in, options.opt_out) {
        (true, ..) => Mode::Broadcast,
        (_, true, _) => Mode::OptIn,
        (.., true) => Mode::OptOut,
        (false, false, false) => Mode::All,
    };
    let quiet = if options.is_quiet { client.id } else { 0 };
    let caching = before.is_some_and(|before| before.caching);
    let mut prefixes = client.tracking.lock().as_ref().map(|terms| terms.prefixes.clone()).unwrap_or_default();
    if options.is_broadcasting && options.prefixes.is_empty() {
        prefixes.push(Bytes::new());
    }
    prefixes.extend(options.prefixes);
    prefixes.sort_unstable();
    prefixes.dedup();
    let Options { redirect, is_broadcasting, .. } = options;
    let terms = Terms { redirect, is_broadcasting, is_broken: false, prefixes };
    call.node.tracking.begin(call.node, client, terms);
    call.session.tracks = Some(Box::new(Tracks { who: Who::client(client.id), mode, caching, quiet }));
}

impl Options {
    fn parse(call: &Call<'_>) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut at = 3;
        while at < call.args.len() {
            let has_value = at + 1 < call.args.len();
            if call.is(at, "redirect") && has_value {
                at += 1;
                options.set_redirect(call, at)?;
            } else if call.is(at, "bcast") {
                options.is_broadcasting = true;
            } else if call.is(at, "optin") {
                options.opt_in = true;
            } else if call.is(at, "optout") {
                options.opt_out = true;
            } else if call.is(at, "noloop") {
                options.is_quiet = true;
            } else if call.is(at, "prefix") && has_value {
                at += 1;
                options.prefixes.push(Bytes::copy_from_slice(call.arg(at)));
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        Ok(options)
    }

    fn set_redirect(&mut self, call: &Call<'_>, at: usize) -> Result<(), CommandError> {
        if self.redirect != 0 {
            return Err(CommandError::text("ERR A client can only redirect to a single other client"));
        }
        let id = call.integer(at)?;
        let is_there = |id: &ClientId| call.node.clients.get(*id).is_some();
        self.redirect = u64::try_from(id)
            .ok()
            .filter(is_there)
            .ok_or(CommandError::text("ERR The client ID you want redirect to does not exist"))?;
        Ok(())
    }

    /// In Redis' order.
    fn check(&self, call: &Call<'_>) -> Result<(), CommandError> {
        if !self.prefixes.is_empty() && !self.is_broadcasting {
            return Err(CommandError::text("ERR PREFIX option requires BCAST mode to be enabled"));
        }
        let before = call.session.tracks().map(|tracks| tracks.mode);
        if before.is_some_and(|before| (before == Mode::Broadcast) != self.is_broadcasting) {
            return Err(CommandError::text(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a \
                 different mode.",
            ));
        }
        if self.is_broadcasting && (self.opt_in || self.opt_out) {
            return Err(CommandError::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
        }
        if self.opt_in && self.opt_out {
            return Err(CommandError::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
        }
        if self.opt_in && before == Some(Mode::OptOut) || self.opt_out && before == Some(Mode::OptIn) {
            return Err(CommandError::text(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a \
                 different mode.",
            ));
        }
        self.check_prefixes(call)
    }

    fn check_prefixes(&self, call: &Call<'_>) -> Result<(), CommandError> {
        let known = call.session.client.tracking.lock();
        let known = known.as_ref().map(|terms| &terms.prefixes[..]).unwrap_or_default();
        for (at, prefix) in self.prefixes.iter().enumerate() {
            let overlaps = |other: &&Bytes| prefix.starts_with(other) || other.starts_with(prefix);
            let existing = known.iter().find(overlaps).map(|other| ("an existing", other));
            let provided = || self.prefixes[at + 1..].iter().find(overlaps).map(|other| ("another provided", other));
            if let Some((which, other)) = existing.or_else(provided) {
                let [prefix, other] = [prefix, other].map(|prefix| String::from_utf8_lossy(prefix));
                return Err(CommandError::from(format!(
                    "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not overlap."
                )));
            }
        }
        Ok(())
    }
}

pub(super) fn caching(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (is_yes, is_no) = (call.is(2, "yes"), call.is(2, "no"));
    let Some(tracks) = &mut call.session.tracks else {
        return Err(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    match (is_yes, is_no) {
        (true, _) if tracks.mode != Mode::OptIn => {
            return Err(CommandError::text(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        (_, true) if tracks.mode != Mode::OptOut => {
            return Err(CommandError::text(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        (false, false) => return Err(CommandError::Syntax),
        _ => tracks.caching = true,
    }
    call.reply.ok();
    Ok(Flow::Continue)
}

/// Who is told in its place: 0 for nobody, -1 if it does not track.
pub(super) fn redirect_of(terms: Option<&Terms>) -> i64 {
    terms.map_or(-1, |terms| terms.redirect as i64)
}

pub(super) fn getredir(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let redirect = redirect_of(call.session.client.tracking.lock().as_deref());
    call.reply.integer(redirect);
    Ok(Flow::Continue)
}

pub(super) fn trackinginfo(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let terms = call.session.client.tracking.lock().clone();
    let flags = flags(call.session.tracks(), terms.as_deref());
    let reply = &mut *call.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect_of(terms.as_deref()));
    reply.bulk(b"prefixes");
    let prefixes = terms.map(|terms| terms.prefixes).unwrap_or_default();
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(Flow::Continue)
}

fn flags(tracks: Option<Tracks>, terms: Option<&Terms>) -> Vec<&'static str> {
    let Some(tracks) = tracks else { return vec!["off"] };
    let is = |mode| tracks.mode == mode;
    let flags = [
        ("on", true),
        ("bcast", is(Mode::Broadcast)),
        ("optin", is(Mode::OptIn)),
        ("caching-yes", is(Mode::OptIn) && tracks.caching),
        ("optout", is(Mode::OptOut)),
        ("caching-no", is(Mode::OptOut) && tracks.caching),
        ("noloop", tracks.quiet != 0),
        ("broken_redirect", terms.is_some_and(|terms| terms.is_broken)),
    ];
    flags.into_iter().filter(|(_, holds)| *holds).map(|(flag, _)| flag).collect()
}
