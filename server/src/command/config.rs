//! CONFIG: what may be asked and changed while the server runs.

mod checks;
mod kind;
mod parameter;
mod parameters;

use std::collections::HashSet;

use forebay_resp::Args;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Positions, Spec};
use super::{glob, help};
use kind::Value;
use parameter::{Access, Parameter};

const ADMIN: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);

pub(super) const TABLE: &[Spec] = &[Spec::new("config", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("get", -3, ADMIN, Categories::empty()).on_node(get).docs(
            "server",
            "2.0.0",
            "O(N) when N is the number of configuration parameters provided",
            "Tells the values of parameters.",
            "parameter [parameter ...]",
        ),
        help::row(Categories::empty(), "server", "5.0.0"),
        Spec::new("resetstat", 2, ADMIN, Categories::empty()).on_node(reset_statistics).docs(
            "server",
            "2.0.0",
            "O(1)",
            "Sets the statistics of INFO to zero.",
            "",
        ),
        Spec::new("rewrite", 2, ADMIN, Categories::empty()).on_node(rewrite).docs(
            "server",
            "2.8.0",
            "O(1)",
            "Writes the present values into the configuration file.",
            "",
        ),
        Spec::new("set", -4, ADMIN, Categories::empty())
            .on_node(set)
            .secrets(secrets_of_set)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .docs(
                "server",
                "2.0.0",
                "O(N) when N is the number of configuration parameters provided",
                "Changes parameters, all of those given or none.",
                "parameter value [parameter value ...]",
            ),
    ])
    .docs("server", "2.0.0", "Depends on subcommand.", "Asks and changes parameters while the server runs.", "")];

/// Names without a wildcard are told as the client spelt them.
fn get(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let mut told = HashSet::new();
    let mut answers = Vec::new();
    for pattern in call.args.iter().skip(2) {
        for (name, parameter) in matching(pattern) {
            if told.insert(name.to_ascii_lowercase()) {
                answers.push((name, parameter));
            }
        }
    }
    call.reply.map(answers.len());
    for (name, parameter) in answers {
        call.reply.bulk(&name);
        call.reply.bulk(parameter.read(call.node).as_bytes());
    }
    Ok(Flow::Continue)
}

fn matching(pattern: &[u8]) -> Vec<(Vec<u8>, &'static Parameter)> {
    if !pattern.iter().any(|byte| b"[*?".contains(byte)) {
        return parameters::find(pattern).map(|parameter| (pattern.to_vec(), parameter)).into_iter().collect();
    }
    let pattern = pattern.to_ascii_lowercase();
    parameters::all()
        .filter(|parameter| parameter.access != Access::Hidden)
        .flat_map(|parameter| parameter.names().map(move |name| (name, parameter)))
        .filter(|(name, _)| glob::matches(&pattern, name.as_bytes()))
        .map(|(name, parameter)| (name.as_bytes().to_vec(), parameter))
        .collect()
}

/// All or nothing: every name is found, then every value read, and only then is anything changed.
fn set(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if !call.args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let named = find_all(call)?;
    let mut changes = Vec::with_capacity(named.len());
    for (parameter, text) in named {
        let value = parameter.kind.parse(&text).map_err(|refusal| failed(parameter.name, &refusal))?;
        if parameter.name == "maxmemory" && call.node.is_frontend() && value.size() > 0 {
            // It could evict nothing, and would refuse writes that are others'.
            return Err(failed(parameter.name, &"a frontend holds no data"));
        }
        changes.push((parameter, value));
    }
    apply(call, &changes)?;
    call.reply.ok();
    Ok(Flow::Continue)
}

fn find_all(call: &Call<'_>) -> Result<Vec<(&'static Parameter, String)>, CommandError> {
    let mut found: Vec<(&Parameter, String)> = Vec::new();
    for at in (2..call.args.len()).step_by(2) {
        let parameter = parameters::find(call.arg(at)).ok_or_else(|| unknown(&call.text(at)))?;
        match parameter.access {
            Access::Immutable => return Err(failed(&call.text(at), &"can't set immutable config")),
            Access::Protected => return Err(failed(&call.text(at), &"can't set protected config")),
            Access::Open | Access::Secret | Access::Hidden => {}
        }
        if found.iter().any(|(other, _)| other.name == parameter.name) {
            return Err(failed(&call.text(at), &"duplicate parameter"));
        }
        found.push((parameter, call.text(at + 1)));
    }
    Ok(found)
}

/// Makes the changes; when one is refused, those before it are taken back.
fn apply(call: &Call<'_>, changes: &[(&Parameter, Value)]) -> Result<(), CommandError> {
    let before: Vec<_> =
        changes.iter().map(|(parameter, _)| parameter.kind.parse(&parameter.read(call.node))).collect();
    for (done, (parameter, value)) in changes.iter().enumerate() {
        if let Err(refusal) = parameter.write(call.node, value) {
            for ((parameter, _), old) in changes[..done].iter().zip(&before) {
                if let Ok(old) = old {
                    // It held a moment ago, so it is not refused now.
                    let _held = parameter.write(call.node, old);
                }
            }
            return Err(failed(parameter.name, &refusal));
        }
    }
    Ok(())
}

fn unknown(name: &str) -> CommandError {
    CommandError::from(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
}

fn failed(name: &str, reason: &dyn std::fmt::Display) -> CommandError {
    CommandError::from(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}

fn secrets_of_set(args: Args<'_>) -> Positions {
    let is_secret = |at: &usize| parameters::find(&args[*at]).is_some_and(|found| found.access == Access::Secret);
    (2..args.len().saturating_sub(1)).step_by(2).filter(is_secret).map(|at| at as u32 + 1).collect()
}

fn reset_statistics(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.node.telemetry.reset();
    call.node.store.reset_counters();
    call.node.clients.reset_counters();
    call.node.reclaimer.reset();
    call.reply.ok();
    Ok(Flow::Continue)
}

/// The configuration file is the operator's: TOML with comments and groups, often read-only in a container. It is not rewritten.
fn rewrite(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    Err(match call.node.identity.config_file {
        None => CommandError::text("ERR The server is running without a config file"),
        Some(_) => CommandError::text("ERR Rewriting config file: the file is left to whoever wrote it"),
    })
}
