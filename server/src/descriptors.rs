//! The process's limit on open descriptors. Every connection takes one, and most systems begin with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors that are not for clients: listeners, the origin's connections, HTTP, the pollers of the threads, files.
const RESERVED: u64 = 256;

/// Raises the limit to what the system allows, and gives the number of clients that may be served: `wanted`, or as many as there are
/// descriptors for.
pub fn provide_for(wanted: usize) -> usize {
    let limit = raise();
    let possible = clients_within(limit);
    if possible < wanted {
        warn!(
            limit,
            maxclients = possible,
            wanted,
            "fewer clients are served than maxclients says: raise the limit on open files"
        );
    }
    wanted.min(possible)
}

/// The limit as it is now that it was raised; `None` stands for no limit.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// At least one, so that a node that can hardly serve can still be asked why.
fn clients_within(limit: Option<u64>) -> usize {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED).max(1));
    usize::try_from(left).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_is_not_reserved() {
        assert_eq!(clients_within(Some(1_024)), 768);
        assert_eq!(clients_within(Some(100)), 1);
        assert_eq!(clients_within(None), usize::MAX);
    }

    #[test]
    fn the_limit_is_raised_to_its_maximum() {
        assert!(provide_for(1) == 1);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
