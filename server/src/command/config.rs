//! CONFIG: the names of the run-time settings.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
