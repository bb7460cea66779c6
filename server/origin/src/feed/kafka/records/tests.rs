use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::feed::kafka::wire::Writer;

/// As a producer writes them; `None` is a message without a value.
fn records(values: &[Option<&[u8]>]) -> Vec<u8> {
    let varint = |number: i64| {
        let mut bits = ((number << 1) ^ (number >> 63)) as u64;
        let mut bytes = Vec::new();
        while bits >= 0x80 {
            bytes.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        bytes.push(bits as u8);
        bytes
    };
    let mut all = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let mut record = vec![0];
        record.extend(varint(5));
        record.extend(varint(number as i64));
        record.extend(varint(-1));
        record.extend(varint(value.map_or(-1, |value| value.len() as i64)));
        record.extend(value.unwrap_or_default());
        record.push(0);
        all.extend(varint(record.len() as i64));
        all.extend(record);
    }
    all
}

fn batch(first: i64, attributes: i16, last_delta: i32, count: i32, records: &[u8]) -> Vec<u8> {
    let mut checked = Writer::default();
    checked
        .int16(attributes)
        .int32(last_delta)
        .int64(1)
        .int64(2)
        .int64(-1)
        .int16(-1)
        .int32(-1)
        .int32(count)
        .put(records);
    let mut batch = Writer::default();
    batch.int64(first).int32(checked.bytes.len() as i32 + 9).int32(0).int8(FORMAT);
    batch.int32(CHECKSUM.checksum(&checked.bytes) as i32).put(&checked.bytes);
    batch.bytes
}

fn values(batch: &Batch) -> Vec<(i64, Option<Vec<u8>>)> {
    batch
        .records()
        .map(|record| record.unwrap())
        .map(|record| (record.offset, record.value.map(<[u8]>::to_vec)))
        .collect()
}

#[test]
fn batches_are_read_however_they_are_compressed() {
    let plain = records(&[Some(b"one"), None, Some(b"three")]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let lz4 = {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let snappy = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let of_java = [SNAPPY_OF_JAVA, &[0, 0, 0, 1, 0, 0, 0, 1], &(snappy.len() as u32).to_be_bytes(), &snappy].concat();
    let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for (kind, bytes) in [(0, plain), (1, gzip), (2, snappy), (2, of_java), (3, lz4), (4, zstd)] {
        let sent = batch(40, kind, 2, 3, &bytes);
        let read: Vec<Batch> = batches(&sent).collect();
        let [read] = read.as_slice() else { panic!("{} batches", read.len()) };
        assert_eq!((read.first, read.last, read.is_thinned()), (40, 42, false), "{kind}: {:?}", read.content);
        assert_eq!(values(read), [(40, Some(b"one".to_vec())), (41, None), (42, Some(b"three".to_vec()))], "{kind}");
    }
}

#[test]
fn what_is_no_message_is_told_apart() {
    let control = batch(7, IS_CONTROL | 1 << 4, 0, 1, &[0x20, 0, 0, 0, 8, 0, 0, 0, 1, 12]);
    let mut broken = batch(8, 0, 1, 2, &records(&[Some(b"a"), Some(b"b")]));
    *broken.last_mut().unwrap() ^= 1;
    let thinned = batch(10, 0, 5, 1, &records(&[Some(b"c")]));
    let short = batch(16, 0, 1, 2, &records(&[Some(b"d")]));
    let unknown = batch(18, 7, 0, 1, b"?");
    let partly = &batch(19, 0, 0, 1, &records(&[Some(b"e")]))[..30];
    let sent = [control.as_slice(), &broken, &thinned, &short, &unknown, partly].concat();
    let read: Vec<Batch> = batches(&sent).collect();
    let lasts: Vec<i64> = read.iter().map(|batch| batch.last).collect();
    assert_eq!(lasts, [7, 9, 15, 17, 18]);
    assert_eq!(read[0].content, Content::Control);
    assert_eq!(read[1].content, Content::Unreadable("its checksum is wrong"));
    assert!(read[2].is_thinned() && !read[3].is_thinned());
    let ends: Vec<bool> = read[3].records().map(|record| record.is_ok()).collect();
    assert_eq!(ends, [true, false], "a batch that promises more than it holds");
    assert!(matches!(read[4].content, Content::Unreadable(_)));
}

#[test]
fn what_would_become_too_large_is_not_decompressed() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![0; LARGEST_BATCH + 1]).unwrap();
    assert_eq!(decompress(1, &encoder.finish().unwrap()), Err(TOO_LARGE));
    // Says of itself that it is 4 GiB.
    assert_eq!(decompress(2, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), Err(TOO_LARGE));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_i16..6) {
        for batch in batches(&bytes) {
            let _all = batch.records().count();
        }
        let sent = batch(1, kind, 3, 4, &bytes);
        for batch in batches(&sent) {
            let _all = batch.records().count();
        }
    }
}
