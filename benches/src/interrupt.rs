//! Ctrl-C and SIGTERM: what is measured so far is printed, and the servers are ended.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on the signals are noted instead of ending the process.
///
/// # Errors
/// When the system does not let us.
pub(crate) fn watch() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| ASKED.store(true, Relaxed))
}

/// Whether the run is to end.
pub(crate) fn asked() -> bool {
    ASKED.load(Relaxed)
}
