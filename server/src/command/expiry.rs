//! Deadlines of keys.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
