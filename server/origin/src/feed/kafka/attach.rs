//! Finding the brokers that lead the partitions, and what these hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::config::KafkaConfig;
use super::offsets::{ByPlace, Held, Place};
use super::requests::{
    ByTopic, EARLIEST, Fetch, Fetched, LATEST, ListOffsets, Metadata, MetadataRequest, MetadataWithIds, NOT_ALLOWED,
    UNKNOWN_TOPIC, in_words,
};
use crate::fault::Fault;
use crate::session::SessionError;

/// Partitions that are read at most, of all topics together.
const MAX_PARTITIONS: usize = 4096;

/// How long a broker waits for messages before it says that there are none.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// What a broker is to send at once, in bytes, of all partitions and of each.
const FETCH: i32 = 8 << 20;
const FETCH_OF_PARTITION: i32 = 1 << 20;

/// Connections to the brokers that lead the partitions.
pub(super) struct Attached {
    pub(super) front: Front,
    pub(super) lanes: Vec<Lane>,
    pub(super) held: BTreeMap<Place, Held>,
    pub(super) ids: BTreeMap<String, String>,
}

/// Why there are none.
#[derive(Debug)]
pub(super) enum NotAttached {
    /// Somebody has to do something.
    Fault(Fault),
    /// It may be otherwise in a moment.
    Failed(SessionError),
}

impl From<SessionError> for NotAttached {
    fn from(error: SessionError) -> Self {
        NotAttached::Failed(error)
    }
}

/// The broker that is asked about the cluster.
pub(super) struct Front {
    broker: Broker,
}

/// The topics and who leads them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) leaders: BTreeMap<Place, i32>,
    pub(super) ids: BTreeMap<String, String>,
    brokers: BTreeMap<i32, (String, u16)>,
}

/// A broker and the partitions that are read from it.
pub(super) struct Lane {
    broker: Broker,
    places: Vec<Place>,
}

/// Connects to all brokers that lead partitions of the topics.
pub(super) async fn attach(config: &KafkaConfig, patience: Duration) -> Result<Attached, NotAttached> {
    let mut front = Front::connect(config, patience).await?;
    let layout = front.look(config).await?;
    let mut by_leader: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
    for (place, leader) in &layout.leaders {
        by_leader.entry(*leader).or_default().push(place.clone());
    }
    let (mut lanes, mut held) = (Vec::new(), BTreeMap::new());
    for (leader, places) in by_leader {
        let Some((host, port)) = layout.brokers.get(&leader) else {
            return Err(SessionError::Unreachable(format!("nobody says where the broker {leader} is")).into());
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let broker = Broker::connect(config, &format!("{host}:{port}"), patience).await?;
        let mut lane = Lane { broker, places };
        held.extend(lane.held().await?);
        lanes.push(lane);
    }
    Ok(Attached { front, lanes, held, ids: layout.ids })
}

/// `forebay check`: what keeps the topics from being read.
pub(in crate::feed) async fn look_at_topics(config: &KafkaConfig, patience: Duration) -> Option<Fault> {
    if let Some(fault) = config.fault() {
        return Some(fault);
    }
    match attach(config, patience).await {
        Ok(_) => None,
        Err(NotAttached::Fault(fault)) => Some(fault),
        Err(NotAttached::Failed(error)) => Some(Fault::unplaced(
            "feed-brokers",
            error.to_string(),
            "is it up, and are host, port, TLS and user as the brokers have them? each broker is asked where the others are \
             (advertised.listeners), so these addresses have to be reachable from here, too",
        )),
    }
}

impl Front {
    /// Connects to the first broker that answers.
    async fn connect(config: &KafkaConfig, patience: Duration) -> Result<Front, SessionError> {
        let mut failed = SessionError::Unreachable("no broker is given".to_owned());
        for name in &config.brokers {
            match Broker::connect(config, name, patience).await {
                Ok(broker) => return Ok(Front { broker }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Asks who leads which partition.
    pub(super) async fn look(&mut self, config: &KafkaConfig) -> Result<Layout, NotAttached> {
        let topics = config.topics.as_slice();
        let metadata = match self.broker.knows::<MetadataWithIds<'_>>() {
            true => self.broker.request(&MetadataWithIds(topics), Duration::ZERO).await?,
            false => self.broker.request(&MetadataRequest(topics), Duration::ZERO).await?,
        };
        Layout::of(metadata, config)
    }
}

impl Layout {
    fn of(metadata: Metadata, config: &KafkaConfig) -> Result<Layout, NotAttached> {
        let fault = |problem: String, hint: String| NotAttached::Fault(Fault::unplaced("feed-topic", problem, hint));
        let failed = |problem: String| NotAttached::Failed(SessionError::Unreachable(problem));
        let (mut leaders, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for name in &config.topics {
            let Some(topic) = metadata.topics.iter().find(|topic| topic.name == *name) else {
                return Err(failed(format!("no broker says anything of the topic `{name}`")));
            };
            match topic.error {
                0 => {}
                UNKNOWN_TOPIC => {
                    let broker = config.brokers.first().map_or("", String::as_str);
                    let hint = format!(
                        "is it spelled as there? or make it: kafka-topics.sh --bootstrap-server {broker} --create --topic {name}"
                    );
                    return Err(fault(format!("there is no topic `{name}`"), hint));
                }
                error if NOT_ALLOWED.contains(&error) => {
                    let hint = "allow the user of --feed-user to read and to describe it".to_owned();
                    return Err(fault(format!("`{name}`: {}", in_words(error)), hint));
                }
                error => return Err(failed(format!("the topic `{name}`: {}", in_words(error)))),
            }
            ids.insert(name.clone(), topic.id.clone());
            let name: Arc<str> = name.as_str().into();
            for partition in &topic.partitions {
                if partition.leader < 0 {
                    return Err(failed(format!("partition {} of `{name}` has no leader now", partition.number)));
                }
                leaders.insert(Place { topic: Arc::clone(&name), partition: partition.number }, partition.leader);
            }
        }
        if leaders.len() > MAX_PARTITIONS {
            let hint = format!("at most {MAX_PARTITIONS} are read: name fewer topics");
            return Err(fault(format!("the topics have {} partitions", leaders.len()), hint));
        }
        Ok(Layout { leaders, ids, brokers: metadata.brokers })
    }
}

impl Lane {
    async fn held(&mut self) -> Result<BTreeMap<Place, Held>, SessionError> {
        let (first, end) = (self.offsets(EARLIEST).await?, self.offsets(LATEST).await?);
        let both = |(place, first): (Place, i64)| {
            let end = *end.get(&place)?;
            Some((place, Held { first, end }))
        };
        Ok(first.into_iter().filter_map(both).collect())
    }

    async fn offsets(&mut self, at: i64) -> Result<ByPlace, SessionError> {
        let partitions = by_topic(&self.places, |place| place.partition);
        let found = self.broker.request(&ListOffsets { at, partitions: &partitions }, Duration::ZERO).await?;
        let mut offsets = ByPlace::new();
        for (topic, partitions) in found {
            let topic: Arc<str> = topic.into();
            for found in partitions {
                self.expect(found.error, &topic, found.partition)?;
                offsets.insert(Place { topic: Arc::clone(&topic), partition: found.partition }, found.offset);
            }
        }
        match self.places.iter().all(|place| offsets.contains_key(place)) {
            true => Ok(offsets),
            false => {
                Err(SessionError::Unreachable(format!("the broker {} does not say what it holds", self.broker.name)))
            }
        }
    }

    fn expect(&self, error: i16, topic: &str, partition: i32) -> Result<(), SessionError> {
        let problem =
            || format!("the broker {}: partition {partition} of `{topic}`: {}", self.broker.name, in_words(error));
        if error == 0 { Ok(()) } else { Err(SessionError::Unreachable(problem())) }
    }

    /// Waits for messages from `next` on, for a while.
    pub(super) async fn fetch(mut self, next: ByPlace) -> (Lane, Result<ByTopic<Fetched>, SessionError>) {
        // What does not fit is sent the next time, when others come first.
        self.places.rotate_left(1);
        let offset = |place: &Place| (place.partition, next.get(place).copied().unwrap_or_default());
        let partitions = by_topic(&self.places, offset);
        let fetch = Fetch {
            max_wait: MAX_WAIT.as_millis() as i32,
            max_bytes: FETCH,
            max_bytes_of_partition: FETCH_OF_PARTITION,
            partitions: &partitions,
        };
        let fetched = self.broker.request(&fetch, MAX_WAIT).await;
        (self, fetched)
    }

    /// What is asked of it next.
    pub(super) fn next(&self, all: &ByPlace) -> ByPlace {
        let of = |place: &Place| all.get(place).map(|offset| (place.clone(), *offset));
        self.places.iter().filter_map(of).collect()
    }
}

fn by_topic<T>(places: &[Place], what: impl Fn(&Place) -> T) -> ByTopic<T> {
    let mut all: ByTopic<T> = Vec::new();
    for place in places {
        let at = all.iter().position(|(topic, _)| **topic == *place.topic).unwrap_or_else(|| {
            all.push((place.topic.to_string(), Vec::new()));
            all.len() - 1
        });
        all[at].1.push(what(place));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::requests::{PartitionMetadata, TopicMetadata};
    use super::*;

    fn layout(error: i16, partitions: &[(i32, i32)]) -> Result<Layout, NotAttached> {
        let config = KafkaConfig { brokers: vec!["b:1".into()], topics: vec!["t".into()], ..KafkaConfig::default() };
        let of = |(number, leader): &(i32, i32)| PartitionMetadata { error: 0, number: *number, leader: *leader };
        let partitions = partitions.iter().map(of).collect();
        let topic = TopicMetadata { error, name: "t".into(), id: "ab".into(), partitions };
        Layout::of(Metadata { topics: vec![topic], ..Metadata::default() }, &config)
    }

    #[test]
    fn what_somebody_has_to_do_is_told_apart_from_what_passes() {
        let layout_of_two = layout(0, &[(0, 7), (1, 8)]).unwrap();
        assert_eq!(layout_of_two.leaders.values().copied().collect::<Vec<_>>(), [7, 8]);
        assert_eq!(layout_of_two.ids["t"], "ab");
        assert!(matches!(layout(0, &[(0, -1)]), Err(NotAttached::Failed(_))), "there will be a leader");
        assert!(matches!(layout(5, &[]), Err(NotAttached::Failed(_))));
        let Err(NotAttached::Fault(fault)) = layout(UNKNOWN_TOPIC, &[]) else { panic!("it is not there") };
        assert!(fault.hint.contains("--bootstrap-server b:1 --create --topic t"), "{fault}");
        assert!(matches!(layout(29, &[]), Err(NotAttached::Fault(_))));
        let many: Vec<(i32, i32)> = (0..=MAX_PARTITIONS as i32).map(|number| (number, 1)).collect();
        assert!(matches!(layout(0, &many), Err(NotAttached::Fault(_))));
    }
}
