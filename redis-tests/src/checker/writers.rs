//! Sessions that change rows by SQL, in all the ways in which rows are changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::psql::Psql;
use super::readers::WARM;
use super::truth::TABLES;

/// The pause of a session whose database does not answer.
const REST: Duration = Duration::from_millis(100);

/// Sessions that write all the time.
pub struct Writers {
    ends: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// What is called with the keys of a table that a transaction may have changed.
pub type Afterwards = dyn Fn(&[(usize, u32)]) + Send + Sync;

/// What a writer is told.
#[derive(Clone)]
pub struct Writing {
    pub url: String,
    pub keys: u32,
    /// Transactions per second of one session.
    pub rate: f64,
    /// Called after each transaction with the keys that it may have changed: what an application with a cache has to do by itself.
    pub afterwards: Option<Arc<Afterwards>>,
}

impl Writers {
    pub fn start(sessions: u64, writing: &Writing, seed: u64) -> Self {
        let (ends, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let session = |number| {
            let (writing, ends, written) = (writing.clone(), Arc::clone(&ends), Arc::clone(&written));
            thread::spawn(move || write(&writing, &ends, &written, StdRng::seed_from_u64(seed + number)))
        };
        let threads = (0..sessions).map(session).collect();
        Self { ends, written, threads }
    }

    /// Transactions that were run to their ends.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Ends the sessions.
    pub fn end(self) {
        self.ends.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a session does not panic"));
    }
}

fn write(writing: &Writing, ends: &AtomicBool, written: &AtomicU64, mut random: StdRng) {
    let mut psql = Psql::open(&writing.url);
    let mut next = Instant::now();
    while !ends.load(Relaxed) {
        let (statements, changed) = statements(writing.keys, &mut random);
        match psql.run(&statements) {
            Some(_) => {
                written.fetch_add(1, Relaxed);
                if let Some(afterwards) = &writing.afterwards {
                    afterwards(&changed);
                }
            }
            None => {
                thread::sleep(REST);
                psql = Psql::open(&writing.url);
            }
        }
        // Who was kept waiting does not catch up.
        next = next.max(Instant::now()) + Duration::from_secs_f64(1.0 / writing.rate);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A transaction, and the keys that it may change.
fn statements(keys: u32, random: &mut StdRng) -> (String, Vec<(usize, u32)>) {
    let table = random.random_range(0..TABLES.len());
    let name = TABLES[table];
    let mut one = || match random.random_range(0..8) {
        0 => 1,
        1 | 2 => random.random_range(1..=WARM),
        _ => random.random_range(1..=keys),
    };
    let (id, other) = (one(), one());
    let touched = vec![(table, id), (table, other)];
    let touch = |id: u32| format!("UPDATE {name} SET xid = 0 WHERE id = {id}");
    let text = match random.random_range(0..1000) {
        // Rows in one order, so that few transactions wait in a circle.
        0..100 => {
            let last = id + 4;
            let text = format!(
                "UPDATE {name} SET xid = 0 WHERE id IN (SELECT id FROM {name} WHERE id BETWEEN {id} AND {last} ORDER BY id FOR UPDATE)"
            );
            return (text, (id..=last).map(|id| (table, id)).collect());
        }
        100..150 => format!("BEGIN; {}; ROLLBACK", touch(id)),
        150..200 => {
            format!("BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; {}; {}; COMMIT", touch(id), touch(other), touch(other))
        }
        200..260 => format!("DELETE FROM {name} WHERE id = {id}"),
        260..360 => format!("INSERT INTO {name} VALUES ({id})"),
        360..400 => format!("UPDATE {name} SET id = {other} WHERE id = {id}"),
        400..402 => {
            let text = format!("TRUNCATE {name}; INSERT INTO {name} SELECT n FROM generate_series(1, {keys}) n");
            return (text, (1..=keys).map(|id| (table, id)).collect());
        }
        402..440 => format!("BEGIN; {}; SELECT pg_sleep(0.005); COMMIT", touch(id)),
        _ => touch(id),
    };
    (text, touched)
}
