//! Strings as arrays of bits.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
