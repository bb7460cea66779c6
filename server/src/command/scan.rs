//! Walking through the keyspace.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
