//! Strings as arrays of bits.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
