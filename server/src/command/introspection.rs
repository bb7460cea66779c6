//! COMMAND: the command table, told to clients.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
