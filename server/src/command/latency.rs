//! LATENCY: spikes and distributions.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
