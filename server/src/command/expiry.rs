//! Deadlines of keys.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
