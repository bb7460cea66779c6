//! MEMORY: what keys and the process occupy.

use super::spec::Spec;

pub(super) const TABLE: &[Spec] = &[];
