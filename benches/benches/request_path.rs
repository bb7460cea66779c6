//! The steps of a request one by one: decode, route, lookup, encode. `cargo bench -p forebay-benches`
//!
//! Wall-clock figures: they tell which step is worth a look, not whether a change helped (see benches/README.md for that).

use std::hint::black_box;

use divan::Bencher;
use forebay_cluster::state::Incarnation;
use forebay_cluster::{Node, NodeId, NodeNumber, Standing, Topology, slot_of};
use forebay_resp::{Decoder, Frame, Limits, Reply};
use forebay_store::{Expiry, Store, StoreConfig};

fn main() {
    divan::Divan::default().sample_size(SAMPLE).config_with_args().main();
}

/// Turns that are timed together.
const SAMPLE: u32 = 256;

const NOW: i64 = 1_700_000_000_000;

/// Keys of the large store, far more than a processor's own caches hold.
const MANY: usize = 1_000_000;

/// Requests of a batch.
const BATCH: usize = 16;

fn key(number: usize) -> String {
    format!("key:{number:011}")
}

mod decode {
    use super::*;

    fn decode_all(bencher: Bencher<'_, '_>, request: &str) {
        let input = request.repeat(BATCH);
        let (mut frame, limits) = (Frame::new(), Limits { authenticated: true, ..Limits::default() });
        bencher.counter(divan::counter::ItemsCount::new(BATCH)).bench_local(|| {
            let mut decoder = Decoder::new();
            let mut rest = input.as_bytes();
            for _ in 0..BATCH {
                match decoder.decode(rest, &limits, &mut frame) {
                    Ok(forebay_resp::Decoded::Request { consumed }) => {
                        black_box(frame.args(rest).get(1));
                        rest = &rest[consumed..];
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }

    #[divan::bench]
    fn get(bencher: Bencher<'_, '_>) {
        decode_all(bencher, &format!("*2\r\n$3\r\nGET\r\n$15\r\n{}\r\n", key(42)));
    }

    #[divan::bench]
    fn set_64_bytes(bencher: Bencher<'_, '_>) {
        decode_all(bencher, &format!("*3\r\n$3\r\nSET\r\n$15\r\n{}\r\n$64\r\n{}\r\n", key(42), "v".repeat(64)));
    }

    #[divan::bench]
    fn mget_10(bencher: Bencher<'_, '_>) {
        let keys: String = (0..10).map(|number| format!("$15\r\n{}\r\n", key(number))).collect();
        decode_all(bencher, &format!("*11\r\n$4\r\nMGET\r\n{keys}"));
    }
}

mod route {
    use super::*;

    #[divan::bench]
    fn slot(bencher: Bencher<'_, '_>) {
        let key = key(42);
        bencher.bench_local(|| slot_of(black_box(key.as_bytes())));
    }

    #[divan::bench]
    fn slot_by_tag(bencher: Bencher<'_, '_>) {
        bencher.bench_local(|| slot_of(black_box(b"{user:1000}.following")));
    }

    #[divan::bench]
    fn slot_and_owner(bencher: Bencher<'_, '_>) {
        let topology = Topology::solo(Node {
            number: NodeNumber(1),
            id: NodeId::from_bytes([7; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6379,
            direct_port: 6380,
            http_port: 9999,
            peer_port: 8001,
            raft_port: 7000,
            zone: None,
            standing: Standing::Up,
            peer_address: "127.0.0.1:8001".to_owned(),
            incarnation: Incarnation(1),
        });
        let key = key(42);
        bencher.bench_local(|| topology.is_here(slot_of(black_box(key.as_bytes()))));
    }
}

mod lookup {
    use super::*;

    struct Filled {
        store: Store,
        names: Vec<String>,
    }

    impl Filled {
        fn with(keys: usize) -> Filled {
            // Asked for in another order than they were made in, which no processor guesses: the step is prime.
            let names = (0..keys).map(|turn| key(turn * 611_953 % keys)).collect();
            let filled = Filled { store: Store::new(StoreConfig::default()), names };
            (0..keys).for_each(|number| filled.set(&key(number)));
            filled
        }

        fn set(&self, name: &str) {
            let key = self.store.key(0, slot_of(name.as_bytes()), name.as_bytes());
            self.store.lock(key.slot(), NOW).set_string(&key, &[b'v'; 64], Expiry::None);
        }

        fn get(&self, name: &str) {
            let key = self.store.key(0, slot_of(name.as_bytes()), name.as_bytes());
            let mut keyspace = self.store.lock(key.slot(), NOW);
            black_box(keyspace.read_string(&key).expect("a string").expect("it was set").len());
        }

        /// The names over and over.
        fn asked(&self) -> impl Iterator<Item = &str> {
            self.names.iter().cycle().map(String::as_str)
        }
    }

    #[divan::bench(args = [1000, MANY])]
    fn get(bencher: Bencher<'_, '_>, keys: usize) {
        let filled = Filled::with(keys);
        let mut names = filled.asked();
        bencher.bench_local(|| filled.get(names.next().expect("endless")));
    }

    #[divan::bench(args = [1000, MANY])]
    fn set(bencher: Bencher<'_, '_>, keys: usize) {
        let filled = Filled::with(keys);
        let mut names = filled.asked();
        bencher.bench_local(|| filled.set(names.next().expect("endless")));
    }

    /// Sixteen keys, warmed as those of a batch are.
    #[divan::bench(args = [1000, MANY])]
    fn get_batch(bencher: Bencher<'_, '_>, keys: usize) {
        let filled = Filled::with(keys);
        let mut names = filled.asked();
        bencher.counter(divan::counter::ItemsCount::new(BATCH)).bench_local(|| {
            let batch: [&str; BATCH] = std::array::from_fn(|_| names.next().expect("endless"));
            let keys = batch.map(|name| filled.store.key(0, slot_of(name.as_bytes()), name.as_bytes()));
            filled.store.prefetch(&keys);
            batch.iter().for_each(|name| filled.get(name));
        });
    }
}

mod encode {
    use super::*;

    fn encode(bencher: Bencher<'_, '_>, mut append: impl FnMut(&mut Reply)) {
        let mut reply = Reply::new();
        bencher.counter(divan::counter::ItemsCount::new(BATCH)).bench_local(|| {
            reply.clear();
            (0..BATCH).for_each(|_| append(&mut reply));
            black_box(reply.len())
        });
    }

    #[divan::bench(args = [16, 64, 1024])]
    fn bulk(bencher: Bencher<'_, '_>, bytes: usize) {
        let value = vec![b'v'; bytes];
        encode(bencher, |reply| reply.bulk(black_box(&value)));
    }

    #[divan::bench]
    fn ok(bencher: Bencher<'_, '_>) {
        encode(bencher, Reply::ok);
    }

    #[divan::bench]
    fn integer(bencher: Bencher<'_, '_>) {
        encode(bencher, |reply| reply.integer(black_box(1234)));
    }

    #[divan::bench]
    fn map_of_5(bencher: Bencher<'_, '_>) {
        encode(bencher, |reply| {
            reply.map(5);
            (0..10).for_each(|_| reply.bulk(black_box(b"field1")));
        });
    }
}
