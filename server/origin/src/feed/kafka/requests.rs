//! What is asked of brokers, in versions that all since Kafka 1.0 have. <https://kafka.apache.org/protocol>

use std::collections::BTreeMap;

use super::wire::{Malformed, Reader, Writer};

/// We are no broker.
const CONSUMER: i32 = -1;

/// What the offset is asked of.
pub(super) const EARLIEST: i64 = -2;
pub(super) const LATEST: i64 = -1;

/// The error codes that mean something of their own here.
pub(super) const OFFSET_OUT_OF_RANGE: i16 = 1;
pub(super) const UNKNOWN_TOPIC: i16 = 3;
pub(super) const NOT_ALLOWED: [i16; 3] = [29, 30, 31];

/// One kind of request, and how its response is read.
pub(super) trait Request {
    type Response;
    const KEY: i16;
    const VERSION: i16;
    /// Whether lengths are varints, from some version of each kind on.
    const IS_COMPACT: bool = false;

    fn write(&self, writer: &mut Writer);

    fn read(reader: &mut Reader<'_>) -> Result<Self::Response, Malformed>;
}

/// Which kinds of requests a broker knows.
pub(super) struct ApiVersions;

/// The highest version by kind, if there is no error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) error: i16,
    pub(super) highest: BTreeMap<i16, i16>,
}

impl Request for ApiVersions {
    type Response = Known;
    const KEY: i16 = 18;
    const VERSION: i16 = 0;

    fn write(&self, _: &mut Writer) {}

    fn read(reader: &mut Reader<'_>) -> Result<Known, Malformed> {
        let error = reader.int16()?;
        let highest = reader.list(|reader| {
            let key = reader.int16()?;
            let _lowest = reader.int16()?;
            Ok((key, reader.int16()?))
        })?;
        Ok(Known { error, highest: highest.into_iter().collect() })
    }
}

/// What a broker says of the cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Where each broker is.
    pub(super) brokers: BTreeMap<i32, (String, u16)>,
    pub(super) topics: Vec<TopicMetadata>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TopicMetadata {
    pub(super) error: i16,
    pub(super) name: String,
    /// Another topic of the same name has another; empty where brokers have none.
    pub(super) id: String,
    pub(super) partitions: Vec<PartitionMetadata>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionMetadata {
    pub(super) error: i16,
    pub(super) number: i32,
    /// -1: there is none now.
    pub(super) leader: i32,
}

/// Asks for it. Topics that are not there are not made by that.
pub(super) struct MetadataRequest<'t>(pub(super) &'t [String]);

/// The same with the topics' ids, from Kafka 3.1 on.
pub(super) struct MetadataWithIds<'t>(pub(super) &'t [String]);

impl Request for MetadataRequest<'_> {
    type Response = Metadata;
    const KEY: i16 = 3;
    const VERSION: i16 = 4;

    fn write(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for topic in self.0 {
            writer.text(topic);
        }
        writer.int8(0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Metadata, Malformed> {
        Metadata::read(reader, false)
    }
}

impl Request for MetadataWithIds<'_> {
    type Response = Metadata;
    const KEY: i16 = 3;
    const VERSION: i16 = 12;
    const IS_COMPACT: bool = true;

    fn write(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for topic in self.0 {
            writer.put(&[0; 16]).text(topic).tags();
        }
        // Makes no topic, and does not ask what we may do with those that are there.
        writer.int8(0).int8(0).tags();
    }

    fn read(reader: &mut Reader<'_>) -> Result<Metadata, Malformed> {
        Metadata::read(reader, true)
    }
}

impl Metadata {
    fn read(reader: &mut Reader<'_>, has_ids: bool) -> Result<Metadata, Malformed> {
        let _throttled = reader.int32()?;
        let brokers = reader.list(|reader| {
            let (number, host, port) = (reader.int32()?, reader.text()?, reader.int32()?);
            let _rack = reader.text()?;
            reader.tags()?;
            Ok((number, (host, u16::try_from(port).map_err(|_| Malformed)?)))
        })?;
        let _cluster = reader.text()?;
        let _controller = reader.int32()?;
        let topics = reader.list(|reader| TopicMetadata::read(reader, has_ids))?;
        Ok(Metadata { brokers: brokers.into_iter().collect(), topics })
    }
}

impl TopicMetadata {
    fn read(reader: &mut Reader<'_>, has_ids: bool) -> Result<TopicMetadata, Malformed> {
        let (error, name) = (reader.int16()?, reader.text()?);
        let id = if has_ids { reader.take(16)? } else { &[] };
        let id = if id.iter().all(|byte| *byte == 0) { String::new() } else { hex(id) };
        let _is_internal = reader.int8()?;
        let partitions = reader.list(|reader| {
            let partition =
                PartitionMetadata { error: reader.int16()?, number: reader.int32()?, leader: reader.int32()? };
            if has_ids {
                let _leader_epoch = reader.int32()?;
            }
            // Who has copies, which of them are up to date, and which are not there.
            for _ in 0..if has_ids { 3 } else { 2 } {
                reader.list(Reader::int32)?;
            }
            reader.tags()?;
            Ok(partition)
        })?;
        if has_ids {
            let _what_we_may_do = reader.int32()?;
        }
        reader.tags()?;
        Ok(TopicMetadata { error, name, id, partitions })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Partitions by topic, with what is said of each.
pub(super) type ByTopic<T> = Vec<(String, Vec<T>)>;

/// Asks for the offset of [`EARLIEST`] or [`LATEST`] in partitions.
pub(super) struct ListOffsets<'p> {
    pub(super) at: i64,
    pub(super) partitions: &'p ByTopic<i32>,
}

/// An offset in a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OffsetFound {
    pub(super) partition: i32,
    pub(super) error: i16,
    pub(super) offset: i64,
}

impl Request for ListOffsets<'_> {
    type Response = ByTopic<OffsetFound>;
    const KEY: i16 = 2;
    const VERSION: i16 = 1;

    fn write(&self, writer: &mut Writer) {
        writer.int32(CONSUMER).count(self.partitions.len());
        for (topic, partitions) in self.partitions {
            writer.text(topic).count(partitions.len());
            for partition in partitions {
                writer.int32(*partition).int64(self.at);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self::Response, Malformed> {
        by_topic(reader, |reader| {
            let (partition, error) = (reader.int32()?, reader.int16()?);
            let _time = reader.int64()?;
            Ok(OffsetFound { partition, error, offset: reader.int64()? })
        })
    }
}

/// Asks for messages.
pub(super) struct Fetch<'p> {
    /// How long the broker may wait for some, in milliseconds.
    pub(super) max_wait: i32,
    /// What it may send of all, and of each partition; if the first batch is larger, that.
    pub(super) max_bytes: i32,
    pub(super) max_bytes_of_partition: i32,
    /// From which offset on.
    pub(super) partitions: &'p ByTopic<(i32, i64)>,
}

/// What came of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) partition: i32,
    pub(super) error: i16,
    /// Behind the last message.
    pub(super) end: i64,
    pub(super) records: Vec<u8>,
}

impl Request for Fetch<'_> {
    type Response = ByTopic<Fetched>;
    const KEY: i16 = 1;
    const VERSION: i16 = 4;

    fn write(&self, writer: &mut Writer) {
        // At least one byte, and what producers have not committed as well: what they tell of was committed in the database.
        writer.int32(CONSUMER).int32(self.max_wait).int32(1).int32(self.max_bytes).int8(0).count(self.partitions.len());
        for (topic, partitions) in self.partitions {
            writer.text(topic).count(partitions.len());
            for (partition, offset) in partitions {
                writer.int32(*partition).int64(*offset).int32(self.max_bytes_of_partition);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self::Response, Malformed> {
        let _throttled = reader.int32()?;
        by_topic(reader, |reader| {
            let (partition, error, end) = (reader.int32()?, reader.int16()?, reader.int64()?);
            let _last_stable = reader.int64()?;
            reader.list(|reader| Ok((reader.int64()?, reader.int64()?)))?;
            Ok(Fetched { partition, error, end, records: reader.blob()?.to_vec() })
        })
    }
}

fn by_topic<T>(
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<ByTopic<T>, Malformed> {
    reader.list(|reader| Ok((reader.text()?, reader.list(&mut read)?)))
}

/// Says by which mechanism we sign in.
pub(super) struct SaslHandshake(pub(super) &'static str);

/// The mechanisms that the broker has, if it does not have ours.
pub(super) struct Mechanisms {
    pub(super) error: i16,
    pub(super) names: Vec<String>,
}

impl Request for SaslHandshake {
    type Response = Mechanisms;
    const KEY: i16 = 17;
    const VERSION: i16 = 1;

    fn write(&self, writer: &mut Writer) {
        writer.text(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Mechanisms, Malformed> {
        Ok(Mechanisms { error: reader.int16()?, names: reader.list(Reader::text)? })
    }
}

/// What a mechanism says.
pub(super) struct SaslAuthenticate(pub(super) Vec<u8>);

/// What the broker says to that.
pub(super) struct SaslAnswer {
    pub(super) error: i16,
    pub(super) problem: String,
    pub(super) bytes: Vec<u8>,
}

impl Request for SaslAuthenticate {
    type Response = SaslAnswer;
    const KEY: i16 = 36;
    const VERSION: i16 = 0;

    fn write(&self, writer: &mut Writer) {
        writer.blob(&self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<SaslAnswer, Malformed> {
        Ok(SaslAnswer { error: reader.int16()?, problem: reader.text()?, bytes: reader.blob()?.to_vec() })
    }
}

/// What a broker's error code means, in words. <https://kafka.apache.org/protocol#protocol_error_codes>
pub(super) fn in_words(error: i16) -> String {
    let words = match error {
        1 => "the offset is out of range",
        3 => "there is no such topic or partition",
        5 => "the partition has no leader now",
        6 => "the broker does not lead the partition",
        7 => "it took the broker too long",
        9 => "a copy is not there",
        13 => "the connection was cut by the broker",
        29 => "this user may not read the topic",
        30 => "this user may not do that with the group",
        31 => "this user may not do that in the cluster",
        33 => "the broker does not have the mechanism",
        34 => "the broker does not allow signing in here",
        35 => "the broker does not know this version of the request",
        56 => "the broker's disk fails",
        58 => "user or password is wrong",
        _ => return format!("error {error}"),
    };
    format!("{words} (error {error})")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_is_read_with_ids_and_without() {
        let mut plain = Writer::default();
        plain.int32(0).count(1).int32(4).text("b").int32(9092).text("rack").text("c").int32(4);
        plain.count(1).int16(0).text("t").int8(0).count(1).int16(0).int32(2).int32(4).count(1).int32(4).count(0);
        let mut with_ids = Writer { is_compact: true, ..Writer::default() };
        with_ids.int32(0).count(1).int32(4).text("b").int32(9092).text("").tags().text("c").int32(4);
        with_ids.count(1).int16(0).text("t").put(&[0xab; 16]).int8(0);
        with_ids
            .count(1)
            .int16(0)
            .int32(2)
            .int32(4)
            .int32(7)
            .count(1)
            .int32(4)
            .count(0)
            .count(0)
            .tags()
            .int32(0)
            .tags();
        let partitions = vec![PartitionMetadata { error: 0, number: 2, leader: 4 }];
        let topic =
            |id: &str| TopicMetadata { error: 0, name: "t".into(), id: id.into(), partitions: partitions.clone() };
        let of = |id| Metadata { brokers: BTreeMap::from([(4, ("b".to_owned(), 9092))]), topics: vec![topic(id)] };
        assert_eq!(MetadataRequest::read(&mut Reader::new(&plain.bytes)), Ok(of("")));
        assert_eq!(MetadataWithIds::read(&mut Reader::compact(&with_ids.bytes)), Ok(of(&"ab".repeat(16))));
    }

    proptest! {
        #[test]
        fn any_response_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ApiVersions::read(&mut Reader::new(&bytes));
            let _ = MetadataRequest::read(&mut Reader::new(&bytes));
            let _ = MetadataWithIds::read(&mut Reader::compact(&bytes));
            let _ = ListOffsets::read(&mut Reader::new(&bytes));
            let _ = Fetch::read(&mut Reader::new(&bytes));
            let _ = SaslHandshake::read(&mut Reader::new(&bytes));
            let _ = SaslAuthenticate::read(&mut Reader::new(&bytes));
        }
    }
}
