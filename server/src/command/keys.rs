//! Keys of any type.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
