//! Finding a setting's value: the flag goes before the environment, the environment before the file, the file before the default.

use std::ffi::OsString;

use forebay_origin::{Fault, Span};

use super::command_line::CommandLine;
use super::file::ConfigFile;
use super::setting::Setting;

/// Looks a variable of the environment up.
pub(super) type Environment<'e> = dyn Fn(&str) -> Option<OsString> + 'e;

/// Reads settings and collects what is wrong with them.
pub(super) struct Reader<'r> {
    pub(super) command_line: &'r CommandLine,
    pub(super) environment: &'r Environment<'r>,
    pub(super) file: Option<ConfigFile>,
    pub(super) faults: Vec<Fault>,
}

/// Why a text is no value of a setting.
pub(super) struct Complaint {
    pub(super) problem: String,
    pub(super) hint: String,
}

/// Where a value came from.
#[derive(Clone)]
enum Source {
    Flag,
    Environment,
    File(Span),
    Default,
}

impl Complaint {
    pub(super) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Complaint {
        Complaint { problem: problem.into(), hint: hint.into() }
    }
}

impl Reader<'_> {
    /// The value of a setting that has a default.
    ///
    /// # Panics
    /// When the table's default is not a value of the setting.
    pub(super) fn value<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> T {
        let setting = Setting::named(name);
        self.optional(name, &parse).unwrap_or_else(|| match parse(self.command_line.task.default_of(setting)) {
            Ok(value) => value,
            Err(complaint) => panic!("the default of {name} is wrong: {}", complaint.problem),
        })
    }

    /// The value of a setting, if one was given and it is right.
    pub(super) fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Option<T> {
        self.all(name, parse).pop()
    }

    /// Every value of a setting that may be given several times.
    pub(super) fn all<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Vec<T> {
        let setting = Setting::named(name);
        let (texts, sources) = self.given(setting);
        let mut values = Vec::new();
        for (text, source) in texts.iter().zip(sources) {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(complaint) => self.fault(setting, &source, complaint),
            }
        }
        values
    }

    /// Adds a fault of a setting whose value can be read but must not stand beside others.
    pub(super) fn refuse(&mut self, name: &str, complaint: Complaint) {
        let setting = Setting::named(name);
        let (_, sources) = self.given(setting);
        let source = sources.into_iter().next_back().unwrap_or(Source::Default);
        self.fault(setting, &source, complaint);
    }

    /// What the strongest source that has the setting says. An empty variable counts as none: that is how one takes a variable back
    /// in a compose file.
    fn given(&self, setting: &Setting) -> (Vec<String>, Vec<Source>) {
        if !self.command_line.task.has(setting) {
            return Default::default();
        }
        let flags = self.command_line.values(setting);
        if !flags.is_empty() {
            let sources = vec![Source::Flag; flags.len()];
            return (flags, sources);
        }
        if let Some(text) = variable(self.environment, setting) {
            let texts: Vec<String> = match setting.repeats {
                true => text.split_whitespace().map(str::to_owned).collect(),
                false => vec![text],
            };
            let sources = vec![Source::Environment; texts.len()];
            return (texts, sources);
        }
        let values = self.file.iter().flat_map(|file| file.values(setting));
        values.map(|value| (value.text.clone(), Source::File(value.span.clone()))).unzip()
    }

    fn fault(&mut self, setting: &Setting, source: &Source, complaint: Complaint) {
        let Complaint { problem, hint } = complaint;
        let fault = match (source, &self.file) {
            (Source::File(span), Some(file)) => file.fault(span, setting, problem, hint),
            (Source::Environment, _) => Fault::unplaced(setting.variable(), problem, hint),
            (Source::Flag | Source::Default | Source::File(_), _) => Fault::unplaced(setting.flag(), problem, hint),
        };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

/// The value of a setting's variable; what is not UTF-8 is replaced, and then refused by whoever parses it.
pub(super) fn variable(environment: &Environment<'_>, setting: &Setting) -> Option<String> {
    let value = environment(&setting.variable())?;
    Some(value.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}
