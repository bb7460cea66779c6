//! Walking through the keyspace.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
