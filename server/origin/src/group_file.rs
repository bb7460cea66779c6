//! Reads `[[group]]` tables and reports everything that is wrong with them at once, each fault with its place.

use std::borrow::Cow;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::duration;
use crate::fault::{Fault, nearest};
use crate::group::{Feed, GroupConfig, MAX_GROUPS, Places, Refresh, Shape, WriteStrategy};
use crate::invalidation::{Invalidation, InvalidationError};
use crate::lines::{Lines, Span};
use crate::pattern::KeyPattern;
use crate::placeholder::Query;

/// The settings of a group.
const SETTINGS: [&str; 16] = [
    "name",
    "key",
    "load",
    "load_many",
    "as",
    "ttl",
    "ttl_jitter",
    "absent_ttl",
    "refresh",
    "stale_if_error",
    "write",
    "save",
    "remove",
    "invalidated_by",
    "feed",
    "min_acks",
];

/// Reads the `[[group]]` tables of `text`, which may be a groups file or a whole configuration file; other keys at the
/// top are left to whoever knows them. `file` is only how faults name it.
pub fn parse_groups(text: &str, file: &str) -> Result<Vec<GroupConfig>, Vec<Fault>> {
    parse_groups_for(text, file, Abilities { feeds: true, writes: true })
}

/// What a caller does about what groups say; settings that need more are refused, rather than taken and nothing done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It follows change feeds.
    pub feeds: bool,
    /// It writes what clients write to the origin.
    pub writes: bool,
}

/// The same for callers that do more.
pub fn parse_groups_for(text: &str, file: &str, abilities: Abilities) -> Result<Vec<GroupConfig>, Vec<Fault>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text, file);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| lines.fault(error.span().unwrap_or(0..0), "syntax", error.message(), ""))
            .collect());
    }
    let mut faults = Vec::new();
    let groups: Vec<GroupConfig> = group_tables(document.get_ref(), &lines, &mut faults)
        .into_iter()
        .filter_map(|(span, table)| GroupReader::new(table, span, &lines, &mut faults).read(abilities))
        .collect();
    fault_group_set(&groups, &mut faults);
    faults.sort_by_key(|fault| (fault.line, fault.column));
    if faults.is_empty() { Ok(groups) } else { Err(faults) }
}

/// What is wrong with the groups as a whole.
pub(crate) fn fault_group_set(groups: &[GroupConfig], faults: &mut Vec<Fault>) {
    if let Some(group) = groups.get(MAX_GROUPS) {
        faults.push(group.fault("name", format!("it is beyond the {MAX_GROUPS} groups that are served"), ""));
    }
    for (index, group) in groups.iter().enumerate() {
        let earlier = &groups[..index];
        if earlier.iter().any(|other| other.name == group.name) {
            faults.push(group.fault("name", "another group has this name already", "give each group its own"));
        }
        if let Some(other) = earlier.iter().find(|other| other.key.covers(&group.key)) {
            faults.push(group.fault(
                "key",
                format!("`{}` has no keys left: group \"{}\" with `{}` comes first", group.key, other.name, other.key),
                "put the more special pattern first, or take one of the groups away",
            ));
        }
    }
}

/// What is wrong with a group's statements, as far as that shows without the database.
pub(crate) fn fault_statements(group: &GroupConfig, faults: &mut Vec<Fault>) {
    let captures = group.key.names().len();
    let statements = [
        ("load", Some(&group.load), captures),
        ("load_many", group.load_many.as_ref(), captures),
        ("save", group.save.as_ref(), captures + 1),
        ("remove", group.remove.as_ref(), captures),
    ];
    for (setting, sql, parameters) in statements {
        let Some(sql) = sql else { continue };
        match Query::parse(sql) {
            Err(error) => faults.push(group.fault(setting, format!("no statement can be read: {error}"), "")),
            Ok(query) if query.highest() > parameters => {
                faults.push(group.fault(
                    setting,
                    format!("it uses ${}, but there {}", query.highest(), are_parameters(parameters)),
                    format!("the captures of `{}` are $1, $2 … in order{}", group.key, value_follows(setting)),
                ));
            }
            Ok(query) if setting == "load" && captures > 0 && query.highest() == 0 => {
                faults.push(group.fault(
                    setting,
                    format!("it uses no capture of `{}`, so every key would have the same value", group.key),
                    "write $1 where the first capture belongs",
                ));
            }
            Ok(_) => {}
        }
    }
}

/// What is wrong with a group's query for many keys, as far as that shows without the database.
pub(crate) fn fault_load_many(group: &GroupConfig, faults: &mut Vec<Fault>) {
    let Some(many) = &group.load_many else { return };
    if group.key.names().len() == 0 {
        let problem = format!("`{}` is one key, so there are never many to load", group.key);
        return faults.push(group.fault("load_many", problem, "leave it out"));
    }
    // What cannot be read is told elsewhere.
    let (Ok(one), Ok(many)) = (Query::parse(&group.load), Query::parse(many)) else { return };
    let (one, many) = (one.used(), many.used());
    if let Some(left_out) = one.iter().find(|number| !many.contains(number)) {
        let problem = format!("it does not use ${left_out}, which `load` uses");
        let hint = format!("${left_out} is an array here, so write … = ANY(${left_out}), or unnest it");
        faults.push(group.fault("load_many", problem, hint));
    }
    if let Some(added) = many.iter().find(|number| !one.contains(number)) {
        let problem = format!("it uses ${added}, which `load` does not use");
        faults.push(group.fault("load_many", problem, "both must give the same value for a key"));
    }
}

/// What is wrong with the tables that invalidate a group's keys, as far as that shows without the database.
pub(crate) fn fault_invalidations(group: &GroupConfig, faults: &mut Vec<Fault>) {
    let mut refuse = |setting, problem: String, hint: String| faults.push(group.fault(setting, problem, hint));
    let captures = group.key.names().len();
    for (place, table) in group.invalidated_by.iter().enumerate() {
        if !table.columns.is_empty() && table.columns.len() != captures {
            let names: Vec<&str> = group.key.names().collect();
            let hint = match captures {
                0 => format!("write \"{}\"", table.table),
                _ => format!(
                    "write a column for each of {}, or \"{}\" alone: then any change invalidates every key of the group",
                    names.join(", "),
                    table.table
                ),
            };
            refuse(
                "invalidated_by",
                format!(
                    "`{table}` is of {}, but `{}` has {}",
                    counted(table.columns.len(), "column"),
                    group.key,
                    counted(captures, "capture")
                ),
                hint,
            );
        }
        let is_known = group.invalidated_by[..place].contains(table);
        if is_known {
            refuse("invalidated_by", format!("`{table}` stands there twice"), "take one of them away".to_owned());
        }
    }
    // Where there is such a setting, its own faults are told.
    let names_no_table = group.invalidated_by.is_empty() && !group.places.has("invalidated_by");
    if let Some(feed) = group.feed.filter(|_| names_no_table) {
        refuse(
            "feed",
            format!("there is nothing to be learnt from `{}` without `invalidated_by`", feed.as_str()),
            "name the tables that the query reads, such as invalidated_by = [\"products(id)\"], or leave feed out"
                .to_owned(),
        );
    }
}

/// What is wrong with how a group writes, as far as that shows without the database.
pub(crate) fn fault_writes(group: &GroupConfig, faults: &mut Vec<Fault>) {
    if group.write == WriteStrategy::None {
        return;
    }
    let captures = group.key.names().len();
    let value = captures + 1;
    let Some(save) = &group.save else {
        let keys: String = (1..=captures).map(|place| format!("${place} and ")).collect();
        return faults.push(group.fault(
            "write",
            format!("`{}` needs a statement to write by", group.write.as_str()),
            format!("add save = \"INSERT … ON CONFLICT … DO UPDATE …\" with {keys}the value as ${value}"),
        ));
    };
    // What cannot be read is told elsewhere.
    let Ok(used) = Query::parse(save).map(|query| query.used()) else { return };
    if !used.contains(&value) {
        faults.push(group.fault("save", format!("it does not use the value, which is ${value}"), ""));
    }
    let remove = group.remove.as_ref().and_then(|remove| Query::parse(remove).ok()).map(|query| query.used());
    for (setting, used) in [("save", Some(used)), ("remove", remove)] {
        let lost = used.and_then(|used| (1..=captures).find(|place| !used.contains(place)));
        if let Some(place) = lost {
            let problem = format!("it does not use ${place}, so that it would write other keys' rows as well");
            faults.push(group.fault(
                setting,
                problem,
                format!("the captures of `{}` are $1, $2 … in order", group.key),
            ));
        }
    }
}

fn counted(count: usize, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        if count == 0 { "no".to_owned() } else { count.to_string() },
        if count == 1 { "" } else { "s" }
    )
}

fn are_parameters(count: usize) -> String {
    match count {
        0 => "are no parameters".to_owned(),
        1 => "is only $1".to_owned(),
        _ => format!("are only $1 to ${count}"),
    }
}

fn value_follows(setting: &str) -> &'static str {
    if setting == "save" { ", and the value is the parameter after them" } else { "" }
}

/// The tables of `group`, each with the place of its header.
fn group_tables<'t, 'i>(
    document: &'t DeTable<'i>,
    lines: &Lines<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<(Span, &'t DeTable<'i>)> {
    let Some((name, value)) = document.iter().find(|(name, _)| name.get_ref() == "group") else {
        return Vec::new();
    };
    let mut refuse = |span: Span| {
        faults.push(lines.fault(span, "group", "it is no list of tables", "write each group under [[group]]"));
    };
    let DeValue::Array(tables) = value.get_ref() else {
        refuse(name.span());
        return Vec::new();
    };
    let mut found = Vec::new();
    for table in tables.iter() {
        match table.get_ref() {
            DeValue::Table(fields) => found.push((table.span(), fields)),
            _ => refuse(table.span()),
        }
    }
    found
}

/// Reads one table; what it cannot read becomes a fault, and it reads on.
struct GroupReader<'r, 'i> {
    table: &'r DeTable<'i>,
    span: Span,
    name: Option<String>,
    lines: &'r Lines<'r>,
    faults: &'r mut Vec<Fault>,
}

impl<'r, 'i> GroupReader<'r, 'i> {
    fn new(table: &'r DeTable<'i>, span: Span, lines: &'r Lines<'r>, faults: &'r mut Vec<Fault>) -> Self {
        let mut reader = GroupReader { table, span, name: None, lines, faults };
        reader.name = reader.text("name").map(Cow::into_owned);
        reader
    }

    /// The group, if what is needed to go on is there; faults of the rest do not hinder that.
    fn read(mut self, abilities: Abilities) -> Option<GroupConfig> {
        self.refuse_unknown_settings();
        let name = self.required("name")?.into_owned();
        if name.is_empty() {
            self.refuse("name", "it is empty", "name the group as logs and metrics shall call it");
        }
        let key = self.key();
        let load = self.required("load").map(Cow::into_owned);
        let load_many = self.text("load_many").map(Cow::into_owned);
        let as_ = self.shape();
        let ttl = self.ttl();
        let ttl_jitter = self.ttl_jitter();
        let absent_ttl = self.absent_ttl();
        let refresh = self.refresh();
        let stale_if_error = self.duration("stale_if_error").filter(|length| !length.is_zero());
        let write = self.write(abilities);
        let save = self.text("save").map(Cow::into_owned);
        let remove = self.text("remove").map(Cow::into_owned);
        let invalidated_by = self.invalidated_by();
        let feed = self.feed();
        self.refuse_unavailable(abilities);
        let mut group = GroupConfig::new(name, key?, load?, as_);
        group.load_many = load_many;
        group.ttl = ttl;
        group.ttl_jitter = ttl_jitter;
        group.absent_ttl = absent_ttl;
        group.refresh = refresh;
        group.stale_if_error = stale_if_error;
        group.write = write;
        group.save = save;
        group.remove = remove;
        group.invalidated_by = invalidated_by;
        group.feed = feed;
        group.places = self.places();
        fault_statements(&group, self.faults);
        fault_load_many(&group, self.faults);
        fault_invalidations(&group, self.faults);
        // Where there is one that this version does not have, that is fault enough.
        if abilities.writes {
            fault_writes(&group, self.faults);
        }
        Some(group)
    }

    fn refuse_unknown_settings(&mut self) {
        for setting in self.table.keys() {
            let name = setting.get_ref().as_ref();
            if SETTINGS.contains(&name) {
                continue;
            }
            let hint = match nearest(name, &SETTINGS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the settings of a group are {}", SETTINGS.join(", ")),
            };
            let place = self.place_of(name);
            self.faults.push(self.lines.fault(setting.span(), place, "there is no such setting", hint));
        }
    }

    /// Refuses settings whose effect this version does not have, rather than take them and do nothing.
    fn refuse_unavailable(&mut self, abilities: Abilities) {
        for setting in ["invalidated_by", "feed"] {
            if !abilities.feeds && self.value(setting).is_some() {
                self.refuse(
                    setting,
                    "change feeds are not available yet",
                    "leave it out and set a ttl; until then a changed row shows when its entry expires",
                );
            }
        }
        if self.value("min_acks").is_some() {
            self.refuse("min_acks", "acknowledgements by replicas are not available yet", "leave it out");
        }
    }

    fn key(&mut self) -> Option<KeyPattern> {
        let text = self.required("key")?;
        match KeyPattern::parse(&text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.refuse("key", error.to_string(), error.hint());
                None
            }
        }
    }

    /// The shape; where there is none, a stand-in: the fault refuses the file, and the group's other faults are told too.
    fn shape(&mut self) -> Shape {
        let hint = "string, json and hash are available";
        match self.required("as").as_deref() {
            Some("json") => return Shape::Json,
            Some("hash") => return Shape::Hash,
            Some("string") | None => {}
            Some(later @ ("list" | "set" | "zset")) => self.refuse(
                "as",
                format!("`{later}` is not available yet: it comes with the list, set and sorted set commands"),
                hint,
            ),
            Some(other) => self.refuse("as", format!("`{other}` is no shape of a value"), hint),
        }
        Shape::String
    }

    fn ttl(&mut self) -> Option<Duration> {
        let ttl = self.duration("ttl")?;
        if ttl.is_zero() {
            self.refuse("ttl", "an entry would expire at once", "leave ttl out to keep entries until they are evicted");
        }
        Some(ttl)
    }

    fn ttl_jitter(&mut self) -> f64 {
        let share = match self.value("ttl_jitter") {
            None => return GroupConfig::DEFAULT_TTL_JITTER,
            Some(DeValue::Float(number)) => number.as_str().parse().ok(),
            Some(DeValue::Integer(number)) => number.as_str().parse().ok(),
            Some(_) => None,
        };
        match share.filter(|share| (0.0..1.0).contains(share)) {
            Some(share) => share,
            None => {
                self.refuse("ttl_jitter", "it is no share of the ttl", "write a number from 0 to below 1, such as 0.1");
                GroupConfig::DEFAULT_TTL_JITTER
            }
        }
    }

    fn absent_ttl(&mut self) -> Option<Duration> {
        match self.value("absent_ttl") {
            None => Some(GroupConfig::DEFAULT_ABSENT_TTL),
            Some(_) => self.duration("absent_ttl").filter(|length| !length.is_zero()),
        }
    }

    fn refresh(&mut self) -> Refresh {
        match self.text("refresh").as_deref() {
            None | Some("off") => Refresh::Off,
            Some("early") => {
                if self.value("ttl").is_none() {
                    self.refuse("refresh", "without a ttl nothing expires, so nothing is refreshed", "set a ttl");
                }
                Refresh::Early
            }
            Some(other) => {
                let problem = format!("`{other}` is no way to refresh");
                self.refuse("refresh", problem, "write \"off\" or \"early\"");
                Refresh::Off
            }
        }
    }

    fn write(&mut self, abilities: Abilities) -> WriteStrategy {
        let strategy = match self.text("write").as_deref() {
            None | Some("none") => return WriteStrategy::None,
            Some("through") => WriteStrategy::Through,
            Some("behind") => WriteStrategy::Behind,
            Some("around") => WriteStrategy::Around,
            Some(other) => {
                let problem = format!("`{other}` is no write strategy");
                self.refuse("write", problem, "write \"none\", \"through\", \"behind\" or \"around\"");
                return WriteStrategy::None;
            }
        };
        if !abilities.writes {
            let problem = format!("write = \"{}\" is not available yet", strategy.as_str());
            self.refuse("write", problem, "leave it out: a client's write then changes the cache alone");
        }
        strategy
    }

    fn invalidated_by(&mut self) -> Vec<Invalidation> {
        let texts = match self.value("invalidated_by") {
            None => return Vec::new(),
            Some(DeValue::Array(list)) => texts(list),
            Some(_) => None,
        };
        let Some(texts) = texts else {
            self.refuse(
                "invalidated_by",
                "it is no list of tables",
                "write [\"products(id)\"], the columns in the order of the captures, or the table alone",
            );
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse() {
                Ok(table) => tables.push(table),
                Err(error) => {
                    self.refuse("invalidated_by", format!("`{text}`: {error}"), InvalidationError::hint(&error))
                }
            }
        }
        tables
    }

    fn feed(&mut self) -> Option<Feed> {
        match self.text("feed")?.as_ref() {
            "wal" => Some(Feed::Wal),
            "notify" => Some(Feed::Notify),
            "kafka" => Some(Feed::Kafka),
            other => {
                let problem = format!("`{other}` is no change feed");
                self.refuse("feed", problem, "write \"wal\", \"notify\" or \"kafka\"");
                None
            }
        }
    }

    fn duration(&mut self, setting: &'static str) -> Option<Duration> {
        let text = self.text(setting)?;
        let length = duration::parse(&text);
        if length.is_none() {
            let problem = format!("`{text}` is no length of time");
            self.refuse(setting, problem, "write numbers with units us, ms, s, m, h or d, such as \"10m\"");
        }
        length
    }

    fn required(&mut self, setting: &'static str) -> Option<Cow<'r, str>> {
        if self.value(setting).is_none() {
            let place = self.place_of(setting);
            let problem = "it is missing";
            self.faults.push(self.lines.fault(
                self.span.clone(),
                place,
                problem,
                format!("every group has {setting} = …"),
            ));
            return None;
        }
        self.text(setting)
    }

    fn text(&mut self, setting: &'static str) -> Option<Cow<'r, str>> {
        match self.value(setting)? {
            DeValue::String(text) => Some(Cow::Borrowed(text.as_ref())),
            _ => {
                self.refuse(setting, "it is no text", "put it in quotes");
                None
            }
        }
    }

    fn value(&self, setting: &str) -> Option<&'r DeValue<'i>> {
        self.entry(setting).map(Spanned::get_ref)
    }

    fn entry(&self, setting: &str) -> Option<&'r Spanned<DeValue<'i>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == setting).map(|(_, value)| value)
    }

    /// Faults the value of `setting` once: reading it for two purposes does not double what is wrong with it.
    fn refuse(&mut self, setting: &'static str, problem: impl Into<String>, hint: impl Into<String>) {
        let at = self.entry(setting).map_or(self.span.clone(), Spanned::span);
        let fault = self.lines.fault(at, self.place_of(setting), problem, hint);
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn place_of(&self, setting: &str) -> String {
        match &self.name {
            Some(name) => format!("group \"{name}\".{setting}"),
            None => format!("group.{setting}"),
        }
    }

    fn places(&self) -> Places {
        let place = |setting: &&'static str| {
            let value = self.entry(setting)?;
            Some((*setting, self.lines.place_of(value.span().start)))
        };
        Places {
            file: self.lines.file().to_owned(),
            table: self.lines.place_of(self.span.start),
            settings: SETTINGS.iter().filter_map(place).collect(),
        }
    }
}

fn texts<'a>(list: &'a DeArray<'_>) -> Option<Vec<&'a str>> {
    list.iter()
        .map(|item| match item.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        })
        .collect()
}
