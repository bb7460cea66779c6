//! From the text of a setting to its value.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use forebay_cluster::NodeId;
use forebay_cluster::discovery::Discovery;
use forebay_cluster::state::MAX_WEIGHT;
use forebay_origin::{KafkaMechanism, KafkaTls, is_feed_name, parse_duration};
use forebay_store::EvictionPolicy;

use super::LogFormat;
use super::reader::Complaint;
use crate::freshness::meter::MOST_SAMPLES;
use crate::identity::DebugCommands;
use crate::size::parse_size;

/// Most databases; every shard keeps a table for each.
const MOST_DATABASES: u16 = 1024;

pub(super) fn text(text: &str) -> Result<String, Complaint> {
    Ok(text.to_owned())
}

pub(super) fn size_above_zero(text: &str) -> Result<u64, Complaint> {
    match size(text)? {
        0 => Err(Complaint::new("it is 0", "")),
        size => Ok(size),
    }
}

pub(super) fn feed_name(text: &str) -> Result<String, Complaint> {
    let hint = "write lower case letters, digits and `_`, at most 40 of them, beginning with a letter";
    match is_feed_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Complaint::new(format!("`{text}` cannot be the name of a replication slot"), hint)),
    }
}

/// One broker, or several with commas between them.
pub(super) fn brokers(text: &str) -> Result<Vec<String>, Complaint> {
    let broker = |text: &str| {
        let text = text.trim();
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        match !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) {
            true => Ok(text.to_owned()),
            false => Err(Complaint::new(format!("`{text}` is no broker"), "write HOST:PORT, such as kafka-1:9092")),
        }
    };
    text.split(',').map(broker).collect()
}

/// As brokers allow them.
pub(super) fn topic(text: &str) -> Result<String, Complaint> {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=249).contains(&text.len()) && text.bytes().all(is_sign) && text != "." && text != "..";
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Complaint::new(
            format!("`{text}` cannot be the name of a topic"),
            "write letters, digits, `.`, `_` and `-`, at most 249 of them",
        )),
    }
}

pub(super) fn broker_tls(text: &str) -> Result<KafkaTls, Complaint> {
    match text {
        "off" => Ok(KafkaTls::Off),
        "on" => Ok(KafkaTls::WellKnown),
        file if std::fs::File::open(file).is_ok() => Ok(KafkaTls::Authorities(file.to_owned())),
        other => Err(Complaint::new(format!("`{other}` cannot be read"), "write off, on, or the name of a PEM file")),
    }
}

pub(super) fn mechanism(text: &str) -> Result<KafkaMechanism, Complaint> {
    let hint = "write plain, scram-sha-256 or scram-sha-512";
    text.parse().map_err(|()| Complaint::new(format!("`{text}` is no mechanism"), hint))
}

pub(super) fn path(text: &str) -> Result<PathBuf, Complaint> {
    match text.is_empty() {
        true => Err(Complaint::new("it is empty", "")),
        false => Ok(PathBuf::from(text)),
    }
}

pub(super) fn path_or_none(text: &str) -> Result<Option<PathBuf>, Complaint> {
    Ok(Some(PathBuf::from(text)).filter(|_| !text.is_empty()))
}

pub(super) fn address(text: &str) -> Result<IpAddr, Complaint> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let hint = "write the address of an interface, such as 127.0.0.1, or 0.0.0.0 for all";
    text.parse().map_err(|_| Complaint::new(format!("`{text}` is no IP address"), hint))
}

pub(super) fn port(text: &str) -> Result<u16, Complaint> {
    text.parse().map_err(|_| {
        let hint = match text.starts_with("tcp://") {
            // https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
            true => "Kubernetes sets this variable for a service named forebay: set enableServiceLinks: false, or pass the flag",
            false => "write a number from 0 to 65535; 0 takes a free port",
        };
        Complaint::new(format!("`{text}` is no port"), hint)
    })
}

pub(super) fn port_or_off(text: &str) -> Result<Option<u16>, Complaint> {
    match text {
        "off" => Ok(None),
        _ => port(text).map(Some),
    }
}

pub(super) fn at_least_one<N: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, Complaint> {
    let number = text.parse::<N>().ok().filter(|number| *number >= N::from(1));
    number.ok_or_else(|| Complaint::new(format!("`{text}` is no number from 1 on"), ""))
}

pub(super) fn count(text: &str) -> Result<u64, Complaint> {
    text.parse().map_err(|_| Complaint::new(format!("`{text}` is no number from 0 on"), ""))
}

pub(super) fn samples(text: &str) -> Result<u64, Complaint> {
    let hint = format!("there may be 0 to {MOST_SAMPLES} a second");
    match count(text) {
        Ok(count) if count <= MOST_SAMPLES => Ok(count),
        _ => Err(Complaint::new(format!("`{text}` is no number of changes to be looked at"), hint)),
    }
}

pub(super) fn databases(text: &str) -> Result<u16, Complaint> {
    let hint = format!("there may be 1 to {MOST_DATABASES}");
    match at_least_one(text) {
        Ok(count) if count <= MOST_DATABASES => Ok(count),
        _ => Err(Complaint::new(format!("`{text}` is no number of databases"), hint)),
    }
}

pub(super) fn size(text: &str) -> Result<u64, Complaint> {
    let hint = "write bytes, or a number with kb, mb or gb, such as 512mb";
    parse_size(text).ok_or_else(|| Complaint::new(format!("`{text}` is no amount of memory"), hint))
}

pub(super) fn time(text: &str) -> Result<Duration, Complaint> {
    let hint = "write numbers with units us, ms, s, m, h or d, such as 1m30s";
    parse_duration(text).ok_or_else(|| Complaint::new(format!("`{text}` is no length of time"), hint))
}

pub(super) fn time_above_zero(text: &str) -> Result<Duration, Complaint> {
    match time(text)? {
        length if length < Duration::from_millis(1) => Err(Complaint::new("it is shorter than a millisecond", "")),
        length => Ok(length),
    }
}

pub(super) fn policy(text: &str) -> Result<EvictionPolicy, Complaint> {
    text.parse().map_err(|error: forebay_store::UnknownPolicy| Complaint::new(error.to_string(), ""))
}

pub(super) fn node_id(text: &str) -> Result<NodeId, Complaint> {
    NodeId::parse(text).map_err(|error| Complaint::new(error.to_string(), ""))
}

pub(super) fn origin_url(text: &str) -> Result<String, Complaint> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") || text.starts_with("sqlite:") {
        true => Ok(text.to_owned()),
        // The text itself is not repeated: it may hold a password.
        false => Err(Complaint::new(
            "it is no URL of an origin",
            "write postgres://user:password@host:5432/database or sqlite://FILE",
        )),
    }
}

/// A host name or an address, by which others call this node.
pub(super) fn host(text: &str) -> Result<String, Complaint> {
    let hint = "write a name or an address without a port, such as node-1.internal or 10.0.0.7";
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match bare.parse::<IpAddr>() {
        Ok(all) if all.is_unspecified() => Err(Complaint::new(format!("`{text}` stands for all addresses"), hint)),
        Ok(IpAddr::V4(_)) | Err(_) if bare != text => Err(Complaint::new(format!("`{text}` is no host"), hint)),
        Ok(_) => Ok(text.to_owned()),
        // The longest name of the DNS.
        Err(_) if (1..=253).contains(&text.len()) && is_name(text) => Ok(text.to_owned()),
        Err(_) => Err(Complaint::new(format!("`{text}` is no host"), hint)),
    }
}

/// A node's host name or address, and its peer port.
pub(super) fn host_and_port(text: &str) -> Result<String, Complaint> {
    let hint = "write HOST:PEER_PORT, such as 10.0.0.7:8001, and an IPv6 address in brackets";
    let parts =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && (!host.contains(':') || host.ends_with(']')));
    match parts.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err(Complaint::new(format!("`{text}` is no address of a node"), hint)),
    }
}

/// Where nodes are found.
pub(super) fn discovery(text: &str) -> Result<Discovery, Complaint> {
    text.parse::<Discovery>().map_err(|invalid| Complaint::new(invalid.problem, invalid.hint))
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, Complaint> {
    let hint = "write ADDRESS:PORT, such as 127.0.0.1:53, and an IPv6 address in brackets";
    text.parse().map_err(|_| Complaint::new(format!("`{text}` is no IP address with a port"), hint))
}

pub(super) fn copies(text: &str) -> Result<u8, Complaint> {
    let most = forebay_cluster::MAX_COPIES as u8;
    match at_least_one(text) {
        Ok(copies) if copies <= most => Ok(copies),
        _ => Err(Complaint::new(format!("`{text}` is no number of copies"), format!("there may be 1 to {most}"))),
    }
}

/// In thousandths.
pub(super) fn weight(text: &str) -> Result<u32, Complaint> {
    let most = f64::from(MAX_WEIGHT) / 1000.0;
    let weight = text.parse::<f64>().ok().filter(|weight| (0.001..=most).contains(weight));
    let hint =
        format!("write a number from 0.001 to {most}; a node of weight 2.0 takes twice as many slots as one of 1.0");
    weight
        .map(|weight| (weight * 1000.0).round() as u32)
        .ok_or_else(|| Complaint::new(format!("`{text}` is no weight"), hint))
}

pub(super) fn switch(text: &str) -> Result<bool, Complaint> {
    choice(text, &[("true", true), ("yes", true), ("1", true), ("false", false), ("no", false), ("0", false)])
}

pub(super) fn debug_commands(text: &str) -> Result<DebugCommands, Complaint> {
    choice(text, &[("no", DebugCommands::No), ("local", DebugCommands::Local), ("yes", DebugCommands::Yes)])
}

pub(super) fn log_level(text: &str) -> Result<tracing::Level, Complaint> {
    use tracing::Level;
    choice(
        text,
        &[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ],
    )
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Complaint> {
    choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Complaint> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Complaint::new(format!("there is no choice `{text}`"), list(&names))
    })
}

fn list(names: &[impl Display]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    format!("choose one of {}", names.join(", "))
}
