//! What nodes say to each other. A cluster of one has nobody to talk to, so there is only the version by which nodes will know
//! whether they understand each other; messages and services join it here, as `.proto` files with their generated code.

/// The version of the conversation between nodes. Nodes of different versions do not form a cluster.
pub const PEER_PROTOCOL: u32 = 1;
