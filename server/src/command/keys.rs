//! Keys of any type.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
