//! How Rust types travel and are kept: postcard, between nodes of one version.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

/// The largest message that is taken. A state is at most some 100 KiB, and the texts of groups are what grows it.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// # Panics
/// Never: our types have no maps of unknown length and nothing that postcard refuses.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("our types can be encoded")
}

/// For what came from another node.
pub(super) fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, Status> {
    postcard::from_bytes(content)
        .map_err(|error| Status::invalid_argument(format!("a message that cannot be read: {error}")))
}
