//! Groups in their file's notation: what nodes agree on, and what `forebay groups show` prints.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::group::{Feed, GroupConfig, Refresh, WriteStrategy};

impl GroupConfig {
    /// The `[[group]]` table that says the same. What has its default is left out, as comments are; so two groups with the same rules
    /// have the same text.
    pub fn to_toml(&self) -> String {
        let mut text = "[[group]]\n".to_owned();
        let mut set = |setting: &str, value: &dyn fmt::Display| {
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{setting} = {value}");
        };
        set("name", &Quoted(&self.name));
        set("key", &Quoted(&self.key.to_string()));
        set("load", &Quoted(&self.load));
        if let Some(many) = &self.load_many {
            set("load_many", &Quoted(many));
        }
        set("as", &Quoted(self.as_.as_str()));
        if let Some(ttl) = self.ttl {
            set("ttl", &Quoted(&length(ttl)));
        }
        if self.ttl_jitter != Self::DEFAULT_TTL_JITTER {
            set("ttl_jitter", &self.ttl_jitter);
        }
        if self.absent_ttl != Some(Self::DEFAULT_ABSENT_TTL) {
            set("absent_ttl", &Quoted(&length(self.absent_ttl.unwrap_or_default())));
        }
        if self.refresh == Refresh::Early {
            set("refresh", &Quoted("early"));
        }
        if let Some(stale) = self.stale_if_error {
            set("stale_if_error", &Quoted(&length(stale)));
        }
        if self.write != WriteStrategy::None {
            set("write", &Quoted(self.write.as_str()));
        }
        for (setting, statement) in [("save", &self.save), ("remove", &self.remove)] {
            if let Some(statement) = statement {
                set(setting, &Quoted(statement));
            }
        }
        if !self.invalidated_by.is_empty() {
            let tables = self.invalidated_by.iter().map(|table| Quoted(&table.to_string()).to_string());
            set("invalidated_by", &format!("[{}]", tables.collect::<Vec<_>>().join(", ")));
        }
        if let Some(feed) = self.feed.filter(|feed| *feed != Feed::Wal) {
            set("feed", &Quoted(feed.as_str()));
        }
        text
    }
}

/// The groups as one file.
pub fn to_toml<'g>(groups: impl IntoIterator<Item = &'g GroupConfig>) -> String {
    groups.into_iter().map(GroupConfig::to_toml).collect::<Vec<_>>().join("\n")
}

/// A length of time in the largest unit that it is a whole number of.
pub fn length(time: Duration) -> String {
    const UNITS: [(u128, &str); 5] =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    let micros = time.as_micros();
    let fits = |(unit, _): &&(u128, &str)| micros > 0 && micros.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", micros / unit),
        None if micros == 0 => "0s".to_owned(),
        None => format!("{micros}us"),
    }
}

/// A text as TOML writes it: one of several lines as it stands, if that is possible.
struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let is_plain = |c: char| c == '\n' || c == '\t' || !c.is_control();
        if text.contains('\n') && text.chars().all(is_plain) && !text.contains("'''") && !text.ends_with('\'') {
            // The first line end belongs to the notation.
            return write!(f, "'''\n{text}'''");
        }
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::Shape;
    use crate::group_file::parse_groups;
    use crate::invalidation::{Invalidation, TableName};
    use crate::pattern::KeyPattern;

    #[test]
    fn what_has_its_default_is_left_out() {
        let key = KeyPattern::parse("product:{id}").unwrap();
        let group = GroupConfig::new("product", key, "SELECT * FROM products WHERE id = $1", Shape::Json);
        let text = "[[group]]\nname = \"product\"\nkey = \"product:{id}\"\n\
                    load = \"SELECT * FROM products WHERE id = $1\"\nas = \"json\"\n";
        assert_eq!(group.to_toml(), text);
    }

    #[test]
    fn lengths_are_written_in_the_largest_unit_that_fits() {
        for text in ["2d", "36h", "90m", "10m", "61s", "1500ms", "7us", "0s"] {
            assert_eq!(length(crate::duration::parse(text).unwrap()), text);
        }
        assert_eq!(length(Duration::from_secs(3600)), "1h");
    }

    proptest! {
        #[test]
        fn a_group_is_read_back_as_it_was(
            name in "\\PC{1,8}",
            note in "[ -~\\n\\t'\"\\\\é\u{7f}\r\u{1}]{0,20}",
            times in prop::array::uniform3(prop::option::of(1u64..10_000_000_000)),
            jitter in 0.0..0.99f64,
            [early, many] in any::<[bool; 2]>(),
            table in "[\\PC]{1,6}",
            feed in prop::option::of(prop::sample::select(vec![Feed::Wal, Feed::Notify])),
        ) {
            let key = KeyPattern::parse("a:{x}").unwrap();
            // Within a comment of SQL, every text is right.
            let note = note.replace("*/", "").replace("/*", "").replace(['*', '/'], "");
            let mut group = GroupConfig::new(name, key, format!("SELECT $1 /* {note} */"), Shape::Hash);
            let [ttl, absent, stale] = times.map(|time| time.map(Duration::from_micros));
            (group.ttl, group.absent_ttl, group.stale_if_error) = (ttl, absent, stale);
            group.ttl_jitter = jitter;
            group.load_many = many.then(|| format!("SELECT unnest($1) AS x /* {note} */"));
            group.refresh = if early && ttl.is_some() { Refresh::Early } else { Refresh::Off };
            if feed.is_some() {
                let name = TableName { schema: None, name: table };
                let one = Invalidation { table: name.clone(), columns: vec!["id".to_owned()] };
                group.invalidated_by = vec![one, Invalidation { table: name, columns: Vec::new() }];
                group.feed = feed;
            }
            let text = group.to_toml();
            let read = parse_groups(&text, "").map_err(|faults| TestCaseError::fail(format!("{faults:?}\n{text}")))?;
            prop_assert_eq!(read.len(), 1);
            prop_assert!(read[0].is_defined_as(&group));
            prop_assert_eq!(&read[0].name, &group.name);
            prop_assert_eq!(&read[0].invalidated_by, &group.invalidated_by);
            prop_assert_eq!(read[0].change_feed(), group.change_feed());
            prop_assert_eq!(read[0].to_toml(), text);
        }
    }
}
