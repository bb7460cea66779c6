//! Hashes.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
