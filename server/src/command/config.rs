//! CONFIG: the names of the run-time settings.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
