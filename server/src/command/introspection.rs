//! COMMAND: the command table, told to clients.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
