//! What nodes say to each other: the messages and services of the `.proto` files, and nothing else.

/// The version of the conversation between nodes. Nodes of different versions do not form a cluster.
pub const PEER_PROTOCOL: u32 = 5;

/// Requests of clients and effects on slots: the peer port.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod peer {
    tonic::include_proto!("forebay.peer.v1");
}

/// How a node finds its cluster and changes it: the peer port.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod membership {
    tonic::include_proto!("forebay.membership.v1");
}

/// Raft and leases: the raft port.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod raft {
    tonic::include_proto!("forebay.raft.v1");
}
