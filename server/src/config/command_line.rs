//! The command line, built from the table of settings.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::setting::{Audience, CONFIG_FILE, SETTINGS, Setting};
use super::{ClusterAction, DemoOptions, GroupsAction, Task};

/// An argument of the commands to a running cluster.
const MEMBER: &str = "member";

/// Arguments of `forebay groups` alone, whose names no setting has.
const FILE: &str = "groups-file";
const UNCHECKED: &str = "unchecked";
const ALLOW_EMPTY: &str = "allow-empty";
const GROUP: &str = "group";

/// What the command line says: a task, and the settings that it gives.
pub(super) struct CommandLine {
    pub(super) task: Task,
    settings: ArgMatches,
}

impl CommandLine {
    /// Reads the arguments, the program's name first.
    ///
    /// # Errors
    /// For unknown flags and subcommands, and when help or the version was asked for.
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, clap::Error> {
        let mut matches = command().try_get_matches_from(arguments)?;
        Ok(match matches.remove_subcommand() {
            None => CommandLine { task: Task::Node, settings: matches },
            Some((name, mut settings)) => match settings.remove_subcommand() {
                None => CommandLine { task: task(&name, &settings)?, settings },
                Some((action, settings)) if name == "groups" => {
                    CommandLine { task: groups_task(&action, &settings), settings }
                }
                Some((action, settings)) => CommandLine { task: cluster_task(&action, &settings), settings },
            },
        })
    }

    /// The values of a setting, in order; none when the command line does not have it, or cannot.
    pub(super) fn values(&self, setting: &Setting) -> Vec<String> {
        let values = self.settings.try_get_many::<String>(setting.name).ok().flatten();
        values.map(|values| values.cloned().collect()).unwrap_or_default()
    }
}

fn task(name: &str, matches: &ArgMatches) -> Result<Task, clap::Error> {
    Ok(match name {
        "check" => Task::Check,
        "frontend" => Task::Frontend,
        "demo" => Task::Demo(DemoOptions {
            seconds: matches.get_one::<u64>("seconds").copied(),
            load: matches.get_flag("load"),
        }),
        _ => Task::Node,
    })
}

fn cluster_task(action: &str, matches: &ArgMatches) -> Task {
    let named = |name| matches.try_get_one::<String>(name).ok().flatten().cloned().unwrap_or_default();
    Task::Cluster(match action {
        "drain" => ClusterAction::Drain { node: named(MEMBER) },
        "undrain" => ClusterAction::Undrain { node: named(MEMBER) },
        "remove" => ClusterAction::Remove { node: named(MEMBER) },
        "rebalance" => ClusterAction::Rebalance,
        _ => ClusterAction::Status,
    })
}

fn groups_task(action: &str, matches: &ArgMatches) -> Task {
    let named = |name| matches.try_get_one::<String>(name).ok().flatten().cloned().unwrap_or_default();
    Task::Groups(match action {
        "apply" => GroupsAction::Apply {
            file: named(FILE),
            unchecked: matches.get_flag(UNCHECKED),
            allow_empty: matches.get_flag(ALLOW_EMPTY),
        },
        "show" => GroupsAction::Show { name: named(GROUP) },
        _ => GroupsAction::List,
    })
}

pub(super) fn command() -> Command {
    let node = Command::new("node").about("Serve as a cache node; what plain `forebay` does, too");
    let frontend = Command::new("frontend").about(
        "Serve as a stateless door of a cluster: RESP and HTTP like its nodes, without data or a vote (give --join)",
    );
    let check =
        Command::new("check").about("Connect to the origin, prepare every group's SQL, and report all faults at once");
    Command::new("forebay")
        .about("A Redis-wire-compatible, read-through cache in front of Postgres")
        .version(env!("CARGO_PKG_VERSION"))
        .args_conflicts_with_subcommands(true)
        .args(arguments())
        .subcommand(node.args(arguments()))
        .subcommand(frontend.args(frontends_arguments()))
        .subcommand(check.args(arguments()))
        .subcommand(demo().args(arguments()))
        .subcommand(cluster())
        .subcommand(groups())
        .after_help(
            "Every setting can also be given in the environment (--http-port as FOREBAY_HTTP_PORT) or in the configuration file \
             (as http_port).\nA flag goes before the environment, the environment before the file.",
        )
}

fn demo() -> Command {
    let seconds = Arg::new("seconds")
        .long("seconds")
        .value_name("N")
        .value_parser(clap::value_parser!(u64))
        .help("Stop after so many seconds [default: at Ctrl-C]");
    let load = Arg::new("load").long("load").action(ArgAction::SetTrue).help("Send a herd of clients of our own, too");
    Command::new("demo")
        .about("Serve 34,006 cities of the world from an embedded SQLite database by three nodes, and tell what to type next")
        .args([seconds, load])
}

fn cluster() -> Command {
    let member = || {
        Arg::new(MEMBER)
            .value_name("NODE")
            .required(true)
            .help("Its number, the beginning of its id, or HOST:PEER_PORT")
    };
    Command::new("cluster")
        .about("Look at a running cluster, and change it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(action("status", "Show the nodes, what each holds, and what is on the move"))
        .subcommand(
            action("drain", "Give all that a node holds to others; returns when it holds nothing").arg(member()),
        )
        .subcommand(action("undrain", "Call a drain off").arg(member()))
        .subcommand(action("remove", "Forget a node that is drained or down").arg(member()))
        .subcommand(action("rebalance", "Share the slots out anew"))
}

fn groups() -> Command {
    let file = Arg::new(FILE).value_name("FILE").required(true).help("TOML with [[group]] tables");
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let apply =
        action("apply", "Check the groups of a file, and have the cluster agree on them in place of the former ones")
            .arg(file)
            .arg(switch(UNCHECKED, "Do not prepare the groups' SQL at the node's origin first"))
            .arg(switch(ALLOW_EMPTY, "A file without groups is no mistake: there are to be none any more"));
    let group = Arg::new(GROUP).value_name("NAME").required(true).help("The group's name");
    Command::new("groups")
        .about("Look at the groups of a running cluster, and replace them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(apply)
        .subcommand(action("list", "Show the groups, and which version they are"))
        .subcommand(action("show", "Print one group as TOML").arg(group))
}

/// A command to a running cluster.
fn action(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args(commands_arguments())
}

fn arguments() -> Vec<Arg> {
    let settings = SETTINGS.iter().filter(|setting| setting.of != Audience::Commands);
    std::iter::once(&CONFIG_FILE).chain(settings).map(argument).collect()
}

/// Those that mean something to a command to a running cluster.
fn commands_arguments() -> Vec<Arg> {
    let settings = SETTINGS.iter().filter(|setting| setting.of != Audience::Servers);
    std::iter::once(&CONFIG_FILE).chain(settings).map(argument).collect()
}

/// Those that mean nothing to a frontend are understood, so that it can be said why.
fn frontends_arguments() -> Vec<Arg> {
    let own = |setting: &'static Setting| match setting.name {
        "join" => argument(setting).help("A node of the cluster; several are asked in turn"),
        "peer-port" => argument(setting).help(format!(
            "The nodes' peer port, where a source does not tell it; none is opened here [default: {}]",
            setting.default
        )),
        "peer-tls-cert" => argument(setting).help("Certificate chain in PEM, as the nodes want to be shown one"),
        _ => argument(setting).hide(setting.not_for_frontends.is_some()),
    };
    let settings = SETTINGS.iter().filter(|setting| setting.of != Audience::Commands);
    std::iter::once(&CONFIG_FILE).chain(settings).map(own).collect()
}

/// Values stay text here: what is wrong with them is told together with what is wrong in the environment and in the file.
fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name).long(setting.name).help(help(setting)).help_heading(setting.topic.heading());
    match setting.is_switch() {
        true => argument
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .hide_possible_values(true)
            .default_missing_value("true"),
        false => {
            argument.value_name(setting.value).action(if setting.repeats { ArgAction::Append } else { ArgAction::Set })
        }
    }
}

fn help(setting: &Setting) -> String {
    match setting.default {
        "" | "false" => setting.help.to_owned(),
        default => format!("{} [default: {default}]", setting.help),
    }
}
