//! Batches of records, as a broker keeps and sends them. <https://kafka.apache.org/documentation/#recordbatch>

use std::io::Read;

use crc::{CRC_32_ISCSI, Crc};

use super::wire::{Malformed, Reader};

/// The checksum of batches.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What a batch may become when it is decompressed, in bytes.
const LARGEST_BATCH: usize = 64 << 20;

/// What stands before the records: the offset and the length, and what the length counts.
const HEAD: usize = 12;

/// The format of batches since Kafka 0.11.
const FORMAT: i8 = 2;

/// A batch of control records, which end producers' transactions.
const IS_CONTROL: i16 = 1 << 5;

/// How the brokers of Java write before what they compress with Snappy, and how much of it there is.
const SNAPPY_OF_JAVA: &[u8] = b"\x82SNAPPY\0";
const SNAPPY_HEAD: usize = 16;

/// Records that were written together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The offsets of its first record and of its last one.
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// How many there are, and their bytes.
    Records(usize, Vec<u8>),
    /// Nothing for us: the end of a producer's transaction.
    Control,
    /// Why it cannot be read.
    Unreadable(&'static str),
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'b> {
    pub(super) offset: i64,
    pub(super) value: Option<&'b [u8]>,
}

/// The batches in what a broker has sent; the last may be there in part, and is left out then.
pub(super) fn batches(bytes: &[u8]) -> impl Iterator<Item = Batch> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut reader = Reader::new(rest);
        let first = reader.int64().ok()?;
        let length = usize::try_from(reader.int32().ok()?).unwrap_or(0);
        let body = reader.take(length).ok()?;
        rest = &rest[HEAD + length..];
        Some(Batch::read(first, body).unwrap_or(Batch {
            first,
            last: first,
            content: Content::Unreadable("it is of an old format, or no batch"),
        }))
    })
}

impl Batch {
    fn read(first: i64, body: &[u8]) -> Result<Batch, Malformed> {
        let mut reader = Reader::new(body);
        let _leader_epoch = reader.int32()?;
        if reader.int8()? != FORMAT {
            return Err(Malformed);
        }
        let checksum = reader.int32()? as u32;
        let checked = reader.clone().rest();
        let attributes = reader.int16()?;
        let last = first.saturating_add(i64::from(reader.int32()?.max(0)));
        // Two times, and who has written it.
        let _passed = reader.take(8 + 8 + 8 + 2 + 4)?;
        let count = usize::try_from(reader.int32()?).unwrap_or(0);
        let content = match CHECKSUM.checksum(checked) == checksum {
            false => Content::Unreadable("its checksum is wrong"),
            true if attributes & IS_CONTROL != 0 => Content::Control,
            true => match decompress(attributes & 7, reader.rest()) {
                Ok(bytes) => Content::Records(count, bytes),
                Err(problem) => Content::Unreadable(problem),
            },
        };
        Ok(Batch { first, last, content })
    }

    /// Whether messages were removed from between the others since they were written.
    pub(super) fn is_thinned(&self) -> bool {
        matches!(&self.content, Content::Records(count, _) if *count as i64 <= self.last - self.first)
    }

    /// The messages; the last is an error if they end too early.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
        let (count, bytes) = match &self.content {
            Content::Records(count, bytes) => (*count, bytes.as_slice()),
            Content::Control | Content::Unreadable(_) => (0, &[][..]),
        };
        let mut reader = Reader::new(bytes);
        let mut has_failed = false;
        (0..count).map_while(move |_| {
            let read = (!has_failed).then(|| Record::read(self.first, &mut reader))?;
            has_failed = read.is_err();
            Some(read)
        })
    }
}

impl<'b> Record<'b> {
    fn read(first: i64, batch: &mut Reader<'b>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(batch.varint_bytes()?.ok_or(Malformed)?);
        let _attributes = reader.int8()?;
        let _time = reader.varint()?;
        let offset = first.saturating_add(reader.varint()?);
        let _key = reader.varint_bytes()?;
        // Headers follow.
        Ok(Record { offset, value: reader.varint_bytes()? })
    }
}

fn decompress(kind: i16, bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    match kind {
        0 => Ok(bytes.to_vec()),
        1 => read_all(flate2::read::MultiGzDecoder::new(bytes)),
        2 => unsnap(bytes),
        3 => read_all(lz4_flex::frame::FrameDecoder::new(bytes)),
        4 => read_all(ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|_| "it is no zstd")?),
        _ => Err("it is compressed in an unknown way"),
    }
}

fn read_all(decoder: impl Read) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    let read = decoder.take(LARGEST_BATCH as u64 + 1).read_to_end(&mut out);
    match read {
        Ok(length) if length <= LARGEST_BATCH => Ok(out),
        Ok(_) => Err(TOO_LARGE),
        Err(_) => Err("it cannot be decompressed"),
    }
}

const TOO_LARGE: &str = "it is too large";

/// One block, or several with their lengths before them.
fn unsnap(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    if !bytes.starts_with(SNAPPY_OF_JAVA) {
        return unsnap_block(bytes, LARGEST_BATCH);
    }
    let mut reader = Reader::new(bytes.get(SNAPPY_HEAD..).unwrap_or_default());
    let mut out = Vec::new();
    while reader.left() > 0 {
        let block = reader.blob().map_err(|_| "it ends too early")?;
        out.extend(unsnap_block(block, LARGEST_BATCH - out.len())?);
    }
    Ok(out)
}

fn unsnap_block(bytes: &[u8], limit: usize) -> Result<Vec<u8>, &'static str> {
    match snap::raw::decompress_len(bytes) {
        Ok(length) if length <= limit => {
            snap::raw::Decoder::new().decompress_vec(bytes).map_err(|_| "it cannot be decompressed")
        }
        Ok(_) => Err(TOO_LARGE),
        Err(_) => Err("it is no Snappy"),
    }
}

#[cfg(test)]
mod tests;
