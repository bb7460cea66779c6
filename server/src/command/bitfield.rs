//! BITFIELD: integers of any width within a string.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
