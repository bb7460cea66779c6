//! The configuration file.

use forebay_origin::{Fault, GroupConfig, Lines, Span, nearest, parse_groups};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::{SETTINGS, Setting};

/// The key of the group tables, which the origin reads.
const GROUPS: &str = "group";

/// A file that has been read: values by setting, not yet parsed, and groups.
pub(super) struct ConfigFile {
    name: String,
    text: String,
    values: Vec<FileValue>,
    pub(super) groups: Vec<GroupConfig>,
}

/// One value of one setting.
pub(super) struct FileValue {
    key: String,
    pub(super) text: String,
    pub(super) span: Span,
}

impl ConfigFile {
    /// Reads a file; `name` is how faults call it. Its groups may mean nothing to who reads it.
    pub(super) fn parse(name: String, text: String, has_groups: bool, faults: &mut Vec<Fault>) -> ConfigFile {
        let lines = Lines::new(&text, &name);
        let (document, errors) = DeTable::parse_recoverable(&text);
        let mut values = Vec::new();
        let mut groups = Vec::new();
        if errors.is_empty() {
            values = read_values(document.get_ref(), &lines, faults);
            match has_groups.then(|| parse_groups(&text, &name)) {
                Some(Ok(read)) => groups = read,
                Some(Err(wrong)) => faults.extend(wrong),
                None => {}
            }
        }
        for error in &errors {
            faults.push(lines.fault(error.span().unwrap_or(0..0), "syntax", error.message(), ""));
        }
        ConfigFile { values, groups, name, text }
    }

    /// The values of a setting, in order.
    pub(super) fn values(&self, setting: &Setting) -> impl Iterator<Item = &FileValue> {
        let key = setting.key();
        self.values.iter().filter(move |value| value.key == key)
    }

    /// A fault of a value.
    pub(super) fn fault(&self, value: &Span, setting: &Setting, problem: String, hint: String) -> Fault {
        Lines::new(&self.text, &self.name).fault(value.clone(), setting.key(), problem, hint)
    }
}

fn read_values(document: &DeTable<'_>, lines: &Lines<'_>, faults: &mut Vec<Fault>) -> Vec<FileValue> {
    let mut values = Vec::new();
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        match SETTINGS.iter().find(|setting| setting.key() == name) {
            Some(setting) => read_value(setting, value, lines, faults, &mut values),
            None if name == GROUPS => {}
            None => faults.push(unknown_key(name, key.span(), lines)),
        }
    }
    values
}

fn unknown_key(name: &str, span: Span, lines: &Lines<'_>) -> Fault {
    let keys: Vec<String> = SETTINGS.iter().map(Setting::key).chain([GROUPS.to_owned()]).collect();
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    let hint = match nearest(name, &known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the keys are {}", known.join(", ")),
    };
    lines.fault(span, name, "there is no such setting", hint)
}

fn read_value(
    setting: &Setting,
    value: &Spanned<DeValue<'_>>,
    lines: &Lines<'_>,
    faults: &mut Vec<Fault>,
    values: &mut Vec<FileValue>,
) {
    match value.get_ref() {
        DeValue::Array(list) if setting.repeats => {
            list.iter().for_each(|item| read_value(setting, item, lines, faults, values));
        }
        single => match text_of(single) {
            Some(text) => values.push(FileValue { key: setting.key(), text, span: value.span() }),
            None => {
                let hint =
                    if setting.repeats { "write a text in quotes, or a list of them" } else { "write one value" };
                faults.push(lines.fault(value.span(), setting.key(), "it is no single value", hint));
            }
        },
    }
}

/// A value in the notation of the command line.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return None;
        }
    })
}
