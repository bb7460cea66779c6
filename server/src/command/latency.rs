//! LATENCY: spikes and distributions.

use super::spec::Spec;

pub(super) static TABLE: &[Spec] = &[];
