//! Strings as numbers.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
