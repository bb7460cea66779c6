//! The server itself.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
