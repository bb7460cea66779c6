//! What Amazon ECS knows of the task that this process runs in: the task metadata endpoint, version 4
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html>).

use std::net::Ipv4Addr;
use std::time::Duration;

use forebay_cluster::NodeId;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

/// Where ECS tells a container the endpoint.
pub const ENDPOINT: &str = "ECS_CONTAINER_METADATA_URI_V4";

/// How long one answer is waited for. The endpoint is on the same machine.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The endpoint may not know a task's addresses yet when its first container starts.
const ATTEMPTS: u32 = 3;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// The longest description that is read. A task has ten containers at most.
const MOST_BYTES: usize = 1 << 20;
/// The mode in which a task has an address of its own, at which others reach it.
const OWN_ADDRESS: &str = "awsvpc";

/// What a node takes from its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The same for every process of this task, and for no other task.
    pub node_id: NodeId,
    pub zone: Option<String>,
    pub address: Option<Ipv4Addr>,
}

/// Why a task cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("{0} is no address of a web server")]
    Endpoint(String),
    #[error("no answer within {TIMEOUT:?}")]
    Late,
    #[error("{0}")]
    Connection(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Status(hyper::StatusCode),
    #[error("its answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is no description of a task: {0}")]
    Json(#[from] serde_json::Error),
}

/// The fields that are of use here, named as ECS does.
#[derive(Deserialize)]
struct Description {
    #[serde(rename = "TaskARN")]
    arn: String,
    #[serde(rename = "AvailabilityZone")]
    zone: Option<String>,
    #[serde(rename = "Containers", default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "Networks", default)]
    networks: Vec<Network>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "NetworkMode", default)]
    mode: String,
    #[serde(rename = "IPv4Addresses", default)]
    addresses: Vec<Ipv4Addr>,
}

impl Task {
    /// Asks the endpoint, some times if need be.
    ///
    /// # Errors
    /// When it does not describe the task.
    pub async fn ask(endpoint: &str) -> Result<Task, TaskError> {
        let mut attempt = 1;
        loop {
            let asked = tokio::time::timeout(TIMEOUT, describe(endpoint)).await;
            match asked.unwrap_or(Err(TaskError::Late)) {
                Ok(description) => return Ok(Task::of(&description)),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn of(description: &Description) -> Task {
        let networks = description.containers.iter().flat_map(|container| &container.networks);
        // All containers of a task share its address.
        let mut addresses =
            networks.filter(|network| network.mode == OWN_ADDRESS).flat_map(|network| &network.addresses);
        let digest = Sha256::digest(description.arn.as_bytes());
        let mut id = [0; 20];
        id.copy_from_slice(&digest[..20]);
        Task {
            node_id: NodeId::from_bytes(id),
            zone: description.zone.clone().filter(|zone| !zone.is_empty()),
            address: addresses.next().copied(),
        }
    }
}

async fn describe(endpoint: &str) -> Result<Description, TaskError> {
    let wrong = || TaskError::Endpoint(endpoint.to_owned());
    let uri: Uri = format!("{}/task", endpoint.trim_end_matches('/')).parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new()).map_err(|_| wrong())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(TaskError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(TaskError::Body)?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    tokio::pin!(connection, answer);
    // The connection has to be driven for the answer to come; it may end with it.
    tokio::select! {
        described = &mut answer => described,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the documentation shows it, shortened.
    const FARGATE: &str = r#"{
        "Cluster": "arn:aws:ecs:us-west-2:111122223333:cluster/default",
        "TaskARN": "arn:aws:ecs:us-west-2:111122223333:task/default/e9028f8d5d8e4f258373e7b93ce9a3c3",
        "Family": "forebay", "DesiredStatus": "RUNNING", "KnownStatus": "NONE",
        "Containers": [
            {"Name": "log-router", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.0.108"], "AttachmentIndex": 0}]},
            {"Name": "forebay"}
        ],
        "AvailabilityZone": "us-west-2a", "LaunchType": "FARGATE"
    }"#;

    fn task(json: &str) -> Task {
        Task::of(&serde_json::from_str(json).expect("a description"))
    }

    #[test]
    fn a_task_has_an_identity_a_zone_and_an_address() {
        let described = task(FARGATE);
        assert_eq!(described.zone.as_deref(), Some("us-west-2a"));
        assert_eq!(described.address, Some(Ipv4Addr::new(10, 0, 0, 108)));
        assert_eq!(described.node_id, task(FARGATE).node_id);
        assert_ne!(described.node_id, task(&FARGATE.replace("e9028f8d", "e9028f8e")).node_id);
    }

    /// In bridge mode the address is one that only the same machine knows.
    #[test]
    fn an_address_that_others_do_not_reach_is_none() {
        assert_eq!(task(&FARGATE.replace("awsvpc", "bridge")).address, None);
        assert_eq!(task(r#"{"TaskARN": "arn:aws:ecs:x:1:task/2"}"#).address, None);
    }
}
