//! Hashes.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
