use proptest::prelude::*;

use super::*;

fn version(sequence: u64) -> Version {
    Version { epoch: 1, sequence }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn append(journal: &Journal, key: &str, sequence: u64) {
    journal.append(bytes(key), version(sequence), bytes(&format!("{key} {sequence}"))).await.unwrap();
}

fn read(directory: &Path) -> Vec<(String, u64)> {
    let (journal, live) = Journal::open(directory).unwrap();
    journal.close();
    let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
    let mut found: Vec<_> = live.iter().map(|(key, (version, _))| (text(key), version.sequence)).collect();
    found.sort();
    found
}

#[tokio::test]
async fn what_is_not_confirmed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, live) = Journal::open(directory.path()).unwrap();
    assert!(live.is_empty());
    for sequence in 1..=3 {
        append(&journal, "a", sequence).await;
        append(&journal, "b", sequence).await;
        append(&journal, "c", sequence).await;
    }
    journal.confirm(bytes("a"), version(3)).await;
    // An older version: what came later is still to be written.
    journal.confirm(bytes("b"), version(2)).await;
    journal.close();
    assert_eq!(read(directory.path()), [("b".to_owned(), 3), ("c".to_owned(), 3)]);
}

#[tokio::test]
async fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let (journal, _) = Journal::open(directory.path()).unwrap();
    append(&journal, "a", 1).await;
    append(&journal, "b", 2).await;
    let good = fs::metadata(&path).unwrap().len() as usize;
    append(&journal, "c", 3).await;
    journal.close();
    let whole = fs::read(&path).unwrap();
    for length in good..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(read(directory.path()), [("a".to_owned(), 1), ("b".to_owned(), 2)], "{length} bytes");
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, good);
    }
    // What is written behind the cut is read as well.
    let (journal, _) = Journal::open(directory.path()).unwrap();
    append(&journal, "d", 4).await;
    journal.close();
    assert_eq!(read(directory.path()).len(), 3);
}

#[tokio::test]
async fn a_damaged_line_costs_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let (journal, _) = Journal::open(directory.path()).unwrap();
    append(&journal, "a", 1).await;
    let from = fs::metadata(&path).unwrap().len() as usize;
    append(&journal, "b", 2).await;
    let to = fs::metadata(&path).unwrap().len() as usize;
    append(&journal, "c", 3).await;
    journal.close();
    let whole = fs::read(&path).unwrap();
    for place in from..to {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x55;
        fs::write(&path, damaged).unwrap();
        assert_eq!(read(directory.path()), [("a".to_owned(), 1), ("c".to_owned(), 3)], "byte {place}");
    }
}

/// A file that nothing can be written to: as a disk that is full.
#[test]
fn what_the_disk_does_not_take_is_refused_and_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut pages = Pages::open(directory.path().join(FILE)).unwrap();
    let write = |pages: &mut Pages, key: &str, sequence| {
        let (answer, mut told) = oneshot::channel();
        pages.write(vec![Message::Append { key: bytes(key), version: version(sequence), record: bytes("r"), answer }]);
        told.try_recv().unwrap()
    };
    assert!(write(&mut pages, "a", 1).is_ok());
    let good = std::mem::replace(&mut pages.file, OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
    let refused = write(&mut pages, "b", 2);
    assert!(refused.as_ref().is_err_and(|reason| reason.contains("No space left")), "{refused:?}");
    // What cannot be cut is written anew.
    assert!(pages.is_bad);
    assert!(write(&mut pages, "c", 3).is_ok());
    drop((pages, good));
    assert_eq!(read(directory.path()), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
}

#[test]
fn a_long_file_of_which_little_is_needed_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let mut pages = Pages::open(directory.path().join(FILE)).unwrap();
    let record = Bytes::from(vec![7; 64 << 10]);
    for sequence in 0..400 {
        let (answer, _told) = oneshot::channel();
        let key = bytes(if sequence == 0 { "old" } else { "new" });
        pages.write(vec![Message::Append { key, version: version(sequence), record: record.clone(), answer }]);
    }
    assert!(pages.length < 2 * REWRITE_FROM, "{} bytes", pages.length);
    drop(pages);
    assert_eq!(read(directory.path()), [("new".to_owned(), 399), ("old".to_owned(), 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Against a map, with a restart and a rewrite anywhere.
    #[test]
    fn it_is_a_map_of_the_latest(steps in prop::collection::vec((0_u8..5, 0_u8..4), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut pages = Pages::open(path.clone()).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for (sequence, (step, key)) in (1..).zip(steps) {
            let key = Bytes::from(vec![key]);
            match step {
                0..2 => {
                    let (answer, _told) = oneshot::channel();
                    pages.write(vec![Message::Append { key: key.clone(), version: version(sequence), record: bytes("r"), answer }]);
                    model.insert(key, version(sequence));
                }
                2 => {
                    if let Some(version) = model.remove(&key) {
                        pages.write(vec![Message::Confirm { key, version }]);
                    }
                }
                3 => pages = Pages::open(path.clone()).unwrap(),
                _ => pages.rewrite().unwrap(),
            }
            let live: std::collections::BTreeMap<_, _> = pages.live.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
            prop_assert_eq!(&live, &model);
            let bytes: usize = pages.live.iter().map(|(key, (_, record))| key.len() + record.len()).sum();
            prop_assert_eq!(pages.live_bytes, bytes as u64);
        }
    }

    #[test]
    fn any_bytes_are_read(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), content).unwrap();
        let _read = Pages::open(directory.path().join(FILE)).unwrap();
    }
}
