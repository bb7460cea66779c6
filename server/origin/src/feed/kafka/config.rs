//! Where the topics are, and who reads them.

use std::fmt;
use std::str::FromStr;

use crate::fault::Fault;

/// Where the topics of changes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port` of some brokers of one Kafka cluster; they tell of the others.
    pub brokers: Vec<String>,
    /// The topics. All partitions of each are read.
    pub topics: Vec<String>,
    /// Whether brokers are spoken to by TLS.
    pub tls: KafkaTls,
    /// Who signs in by SASL; `None`: nobody does.
    pub login: Option<KafkaLogin>,
}

/// Whether brokers are spoken to by TLS. Their certificates are verified, with the names in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KafkaTls {
    /// They are not.
    #[default]
    Off,
    /// Well-known authorities have signed their certificates.
    WellKnown,
    /// Those, or the authorities in this PEM file.
    Authorities(String),
}

/// A user of the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    /// How the password is shown.
    pub mechanism: KafkaMechanism,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// How a password is shown to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaMechanism {
    /// As it is.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig { brokers: Vec::new(), topics: vec!["forebay".to_owned()], tls: KafkaTls::Off, login: None }
    }
}

impl KafkaConfig {
    /// Why nothing can be read, if it is by this configuration.
    pub(super) fn fault(&self) -> Option<Fault> {
        let fault = |place: &str, problem: &str, hint: &str| Some(Fault::unplaced(place, problem, hint));
        if self.brokers.is_empty() {
            return fault(
                "feed-brokers",
                "no broker is given for the groups with feed = \"kafka\"",
                "give --feed-brokers HOST:PORT, of one or more brokers",
            );
        }
        if self.topics.is_empty() {
            return fault("feed-topic", "no topic is given", "give --feed-topic NAME");
        }
        None
    }
}

impl KafkaMechanism {
    const ALL: [KafkaMechanism; 3] = [KafkaMechanism::Plain, KafkaMechanism::ScramSha256, KafkaMechanism::ScramSha512];

    /// Its name among brokers.
    pub fn as_str(self) -> &'static str {
        match self {
            KafkaMechanism::Plain => "PLAIN",
            KafkaMechanism::ScramSha256 => "SCRAM-SHA-256",
            KafkaMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl FromStr for KafkaMechanism {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mechanism| text.eq_ignore_ascii_case(mechanism.as_str())).ok_or(())
    }
}

impl fmt::Debug for KafkaLogin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KafkaLogin")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
