//! Strings as numbers.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
