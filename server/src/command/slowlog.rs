//! SLOWLOG: the last slow commands.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
