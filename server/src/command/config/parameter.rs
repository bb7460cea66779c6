//! A row of `CONFIG`: a name, the values that it takes, and what they change.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::kind::{Kind, Refusal, Value};
use crate::node::Node;
use crate::settings::Settings;

/// One name of `CONFIG`.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// An older name for the same.
    pub(super) alias: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) access: Access,
    pub(super) effect: Effect,
}

/// Who may see and change a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    /// Not to be shown in any log.
    Secret,
    /// Told only to those who ask for it by its whole name.
    Hidden,
    /// Set when the process starts, and never again.
    Immutable,
    /// Could let a client write files where it should not.
    Protected,
}

/// What a parameter changes.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// A switch of the server.
    Switch(fn(&Settings) -> &AtomicBool),
    Integer(fn(&Settings) -> &AtomicI64),
    Unsigned(fn(&Settings) -> &AtomicU64),
    Size(fn(&Settings) -> &AtomicUsize),
    /// Something that is read and written in a way of its own.
    Custom {
        read: fn(&Node) -> String,
        write: fn(&Node, &Value),
    },
    /// A fact of this process: told, and only "changed" to what it is already. The text says why to the client that tries.
    Fact {
        read: fn(&Node) -> String,
        otherwise: &'static str,
    },
    /// As [`Effect::Fact`], for what is the same in every process.
    Always {
        value: &'static str,
        otherwise: &'static str,
    },
    /// Nothing: it tunes machinery that does not exist here. What was set is told again. Carries the default.
    None(&'static str),
}

impl Parameter {
    pub(super) const fn new(name: &'static str, kind: Kind, effect: Effect) -> Parameter {
        Parameter { name, alias: None, kind, access: Access::Open, effect }
    }

    pub(super) const fn alias(mut self, alias: &'static str) -> Parameter {
        self.alias = Some(alias);
        self
    }

    pub(super) const fn access(mut self, access: Access) -> Parameter {
        self.access = access;
        self
    }

    /// The names that it is known by.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.alias)
    }

    /// The value as `CONFIG GET` tells it.
    pub(super) fn read(&self, node: &Node) -> String {
        let settings = &node.settings;
        match self.effect {
            Effect::Switch(cell) => Value::Switch(cell(settings).load(Relaxed)).to_string(),
            Effect::Integer(cell) => cell(settings).load(Relaxed).to_string(),
            Effect::Unsigned(cell) => cell(settings).load(Relaxed).to_string(),
            Effect::Size(cell) => cell(settings).load(Relaxed).to_string(),
            Effect::Custom { read, .. } | Effect::Fact { read, .. } => read(node),
            Effect::Always { value, .. } => value.to_owned(),
            Effect::None(default) => settings.remembered(self.name).unwrap_or_else(|| default.to_owned()),
        }
    }

    /// Makes `value` hold.
    ///
    /// # Errors
    /// When it is a fact of the process that is not so.
    pub(super) fn write(&self, node: &Node, value: &Value) -> Result<(), Refusal> {
        let settings = &node.settings;
        match self.effect {
            Effect::Switch(cell) => cell(settings).store(*value == Value::Switch(true), Relaxed),
            Effect::Integer(cell) => cell(settings).store(value.signed(), Relaxed),
            Effect::Unsigned(cell) => cell(settings).store(value.unsigned(), Relaxed),
            Effect::Size(cell) => cell(settings).store(value.size(), Relaxed),
            Effect::Custom { write, .. } => write(node, value),
            Effect::Fact { otherwise, .. } | Effect::Always { otherwise, .. } => {
                if value.to_string() != self.read(node) {
                    return Err(Refusal::Because(otherwise));
                }
            }
            Effect::None(_) => settings.remember(self.name, value.to_string()),
        }
        Ok(())
    }
}

impl Value {
    /// The number, where the kind is one of numbers.
    pub(super) fn signed(&self) -> i64 {
        match *self {
            Value::Integer(number) => number,
            Value::Size(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Value::Switch(on) => i64::from(on),
            Value::Text(_) => 0,
        }
    }

    /// The number; kinds that may be negative are not asked.
    pub(super) fn unsigned(&self) -> u64 {
        match *self {
            Value::Size(bytes) => bytes,
            _ => u64::try_from(self.signed()).unwrap_or(0),
        }
    }

    pub(super) fn size(&self) -> usize {
        usize::try_from(self.unsigned()).unwrap_or(usize::MAX)
    }
}
