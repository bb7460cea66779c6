//! Who calls: told with each stream, and looked at before anything else is.

use std::str::FromStr;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

use crate::PEER_PROTOCOL;
use crate::slots::NodeNumber;
use crate::state::{ClusterId, Incarnation};

const PROTOCOL: &str = "forebay-protocol";
const CLUSTER: &str = "forebay-cluster";
const NODE: &str = "forebay-node";
const INCARNATION: &str = "forebay-incarnation";
const EPOCH: &str = "forebay-epoch";

/// What a node says of itself when it begins a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub cluster: ClusterId,
    /// `None` for a frontend, which is no member.
    pub number: Option<NodeNumber>,
    pub incarnation: Incarnation,
    /// The epoch that it knows of.
    pub epoch: u64,
}

/// Why a caller is not listened to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error(
        "the caller speaks version {theirs} of the conversation between nodes, this node speaks {ours}: run one release everywhere"
    )]
    Version { theirs: String, ours: u32 },
    #[error(
        "the caller is of cluster {theirs}, this node of cluster {ours}: one of them has the wrong address or another cluster's data directory"
    )]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error("this node is not a member of a cluster yet")]
    NotYet,
    #[error("the caller does not say who it is ({0})")]
    Unclear(&'static str),
}

impl Hello {
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL, PEER_PROTOCOL.into());
        if let Ok(cluster) = MetadataValue::from_str(&self.cluster.to_string()) {
            metadata.insert(CLUSTER, cluster);
        }
        if let Some(number) = self.number {
            metadata.insert(NODE, number.0.into());
        }
        metadata.insert(INCARNATION, self.incarnation.0.into());
        metadata.insert(EPOCH, self.epoch.into());
        request
    }

    /// Who the caller is, if it is of this cluster.
    ///
    /// # Errors
    /// When it is not, or does not say.
    pub(super) fn read(metadata: &MetadataMap, here: Option<&Hello>) -> Result<Hello, Stranger> {
        let version = text(metadata, PROTOCOL)?;
        if version.parse() != Ok(PEER_PROTOCOL) {
            return Err(Stranger::Version { theirs: version.to_owned(), ours: PEER_PROTOCOL });
        }
        let cluster = ClusterId::parse(text(metadata, CLUSTER)?).map_err(|_| Stranger::Unclear(CLUSTER))?;
        let ours = here.ok_or(Stranger::NotYet)?.cluster;
        if cluster != ours {
            return Err(Stranger::Cluster { theirs: cluster, ours });
        }
        Ok(Hello {
            cluster,
            number: metadata.get(NODE).map(|_| number(metadata, NODE)).transpose()?.map(NodeNumber),
            incarnation: Incarnation(number(metadata, INCARNATION)?),
            epoch: number(metadata, EPOCH)?,
        })
    }
}

impl From<Stranger> for Status {
    fn from(stranger: Stranger) -> Status {
        Status::permission_denied(stranger.to_string())
    }
}

fn text<'m>(metadata: &'m MetadataMap, name: &'static str) -> Result<&'m str, Stranger> {
    metadata.get(name).and_then(|value| value.to_str().ok()).ok_or(Stranger::Unclear(name))
}

fn number<N: FromStr>(metadata: &MetadataMap, name: &'static str) -> Result<N, Stranger> {
    text(metadata, name)?.parse().map_err(|_| Stranger::Unclear(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Hello = Hello {
        cluster: ClusterId([1; 16]),
        number: Some(NodeNumber(3)),
        incarnation: Incarnation(u64::MAX),
        epoch: 9,
    };

    #[test]
    fn a_caller_is_known_by_what_it_says() {
        for caller in [HERE, Hello { number: None, epoch: 0, ..HERE }] {
            assert_eq!(Hello::read(caller.request(()).metadata(), Some(&HERE)), Ok(caller));
        }
    }

    #[test]
    fn others_are_refused() {
        let theirs = ClusterId([2; 16]);
        let stranger = Hello { cluster: theirs, ..HERE }.request(());
        let refused = Stranger::Cluster { theirs, ours: HERE.cluster };
        assert_eq!(Hello::read(stranger.metadata(), Some(&HERE)), Err(refused));
        assert_eq!(Hello::read(HERE.request(()).metadata(), None), Err(Stranger::NotYet));
        assert_eq!(Hello::read(&MetadataMap::new(), Some(&HERE)), Err(Stranger::Unclear(PROTOCOL)));
        let mut newer = HERE.request(());
        newer.metadata_mut().insert(PROTOCOL, (PEER_PROTOCOL + 1).into());
        assert!(matches!(Hello::read(newer.metadata(), Some(&HERE)), Err(Stranger::Version { .. })));
    }
}
