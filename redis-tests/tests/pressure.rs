//! Much of everything at once: many idle connections, values of many MiB, clients that read slowly. Memory stays bounded, and a client
//! that asks for something small meanwhile is answered.
//!
//! `FOREBAY_HERD=10000` sets the number of idle connections, `FOREBAY_READERS=1000` that of slow readers, `FOREBAY_LARGE=64` the MiB of
//! a large value. Times are printed, and held against nothing: they mean something on a quiet machine alone.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::herd::Herd;
use forebay_redis_tests::probe::{Latencies, Probe, Question};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};
use tokio::net::TcpSocket;

const MIB: usize = 1024 * 1024;

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an idle connection may cost.
const IDLE_BYTES: u64 = 2048;

/// Physical memory comes in huge pages: a difference of two measurements is off by a few of them.
const HUGE_PAGES: u64 = 4 * 2 * MIB as u64;

/// What a slow reader's side takes of replies, in bytes.
const RECEIVE_BYTES: u32 = 16 * 1024;

/// Times that a large value is written and read.
const ROUNDS: usize = 8;

/// A server that has run for this long without work tells what it does by itself.
const IDLE: Duration = Duration::from_secs(2);

#[test]
fn idle_connections_are_cheap() {
    let size = setting("FOREBAY_HERD", 4_000);
    let mut server = start();
    // What the first few cost is not what the many cost: buffers, tables, the threads' own memory.
    let mut few = Herd::gather(server.address(), 100);
    let mut client = server.connect();
    client.command("SET key value");
    few.ask(&["GET", "key"]);
    let before = (server.process().resident_bytes(), used(&mut client));
    let mut herd = Herd::gather(server.address(), size);
    let each = |now: u64, before: u64| now.saturating_sub(before) / size as u64;
    let resident = each(server.process().resident_bytes(), before.0);
    println!("{size} connections: {resident} bytes each resident, {} allocated", each(used(&mut client), before.1));

    let answers = herd.ask(&["GET", "key"]);
    assert!(answers.iter().all(|answer| answer.reply == Reply::Bulk(b"value".to_vec())));
    let (after, allocated) = (server.process().resident_bytes(), each(used(&mut client), before.1));
    println!("  after a request: {} bytes each resident, {allocated} allocated", each(after, before.0));
    assert!(after < before.0 + IDLE_BYTES * size as u64 + HUGE_PAGES, "{} bytes each", each(after, before.0));
    assert!(allocated <= IDLE_BYTES, "{allocated} bytes each are allocated");
    drop(few);
}

#[test]
fn an_idle_server_sleeps() {
    let mut server = start();
    server.connect().command("PING");
    let before = server.process().processor_time();
    std::thread::sleep(IDLE);
    let spent = server.process().processor_time() - before;
    println!(
        "an idle server uses {:.2} ms of processor time a second",
        spent.as_secs_f64() * 1000.0 / IDLE.as_secs_f64()
    );
    // A thread that never sleeps would use all of it.
    assert!(spent < IDLE / 2, "{spent:?} of processor time within {IDLE:?}: something is spinning");
}

#[test]
fn large_values_come_and_go_without_holding_up_others() {
    for mib in [1, setting("FOREBAY_LARGE", 16)] {
        let mut server = start();
        let mut client = server.connect();
        client.command("SET small value");
        let before = server.process().resident_bytes();
        server.process().reset_peak();
        let reference = probe_for(&server, Duration::from_millis(500));
        let request = encode(&[b"SET".to_vec(), b"large".to_vec(), vec![b'x'; mib * MIB]]);
        let reply = format!("${}\r\n", mib * MIB).len() + mib * MIB + 2;
        let mut stream = TcpStream::connect(server.address()).expect("the server accepts");

        let set = watched(&server, || {
            stream.write_all(&request).expect("the server reads");
            read_all(&mut stream, b"+OK\r\n".len());
        });
        let peak = server.process().peak_resident_bytes().saturating_sub(before);
        let got = watched(&server, || {
            stream.write_all(&encode(&["GET", "large"])).expect("the server reads");
            read_all(&mut stream, reply);
        });
        println!("a value of {mib} MiB is set and read {ROUNDS} times: at most {} KiB resident", peak / 1024);
        println!(
            "  others during SET:      {set}\n  others during GET:      {got}\n  others without:         {reference}"
        );
        // The value, the one that comes to replace it, what that has grown out of, and what the allocator keeps for a second before it
        // gives it back.
        let most = (6 * mib * MIB) as u64 + HUGE_PAGES;
        assert!(peak <= most, "{peak} bytes for a value of {mib} MiB");
        client.command("DEL large");
        let falls = eventually(PATIENCE, || used(&mut client) < 8 * MIB as u64);
        assert!(falls, "a deleted value is still there");
    }
}

#[test]
fn slow_readers_share_what_they_read() {
    let size = setting("FOREBAY_READERS", 100);
    let mut server = start();
    let mut client = server.connect();
    client.command("SET small value");
    client.call(&[b"SET".to_vec(), b"large".to_vec(), vec![b'x'; MIB]]).expect("a reply");
    let before = (server.process().resident_bytes(), used(&mut client));

    let probe = Probe::start(server.address(), small());
    let mut readers = slow_readers(server.address(), size);
    for reader in &mut readers {
        reader.write_all(&encode(&["GET", "large"]).repeat(8)).expect("the server reads");
    }
    await_stalled(&mut client, size);
    let stalled = (server.process().resident_bytes(), used(&mut client));
    let each = |now: u64, before: u64| now.saturating_sub(before) / size as u64;
    println!(
        "{size} readers of 8 times 1 MiB: {} KiB each resident, {} allocated",
        each(stalled.0, before.0) / 1024,
        each(stalled.1, before.1) / 1024
    );
    assert!(stalled.1 < before.1 + (size * 64 * 1024) as u64, "{} bytes each", each(stalled.1, before.1));

    // Every write leaves the old value to those who are still reading it, and all of them read the same.
    for n in 0..16 {
        client.call(&[b"SET".to_vec(), b"large".to_vec(), vec![b'a' + n; MIB]]).expect("a reply");
    }
    let overwritten = used(&mut client);
    println!("  overwritten 16 times meanwhile: {} KiB more", overwritten.saturating_sub(stalled.1) / 1024);
    assert!(overwritten < stalled.1 + 4 * MIB as u64, "old values pile up");
    for reader in &mut readers {
        read_all(reader, "$1048576\r\n".len() + MIB + 2);
    }
    println!("  others meanwhile: {}", probe.end());
    drop(readers);
    assert!(
        eventually(PATIENCE, || used(&mut client) < before.1 + 4 * MIB as u64),
        "readers that have gone leave something"
    );
}

/// Does something several times while a client asks for something small, and tells what that one saw.
fn watched(server: &Forebay, mut act: impl FnMut()) -> Latencies {
    let probe = Probe::start(server.address(), small());
    (0..ROUNDS).for_each(|_| act());
    probe.end()
}

fn probe_for(server: &Forebay, time: Duration) -> Latencies {
    let probe = Probe::start(server.address(), small());
    std::thread::sleep(time);
    probe.end()
}

fn small() -> Question {
    Question::single(&["GET", "small"], "$5\r\nvalue\r\n".len())
}

/// Connections whose receive buffers are far smaller than a value; nobody empties them.
fn slow_readers(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connect = || async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        let stream = socket.connect(address).await?.into_std()?;
        stream.set_nonblocking(false)?;
        io::Result::Ok(stream)
    };
    (0..count).map(|_| runtime.block_on(connect()).expect("the server accepts")).collect()
}

/// Waits until so many clients have replies that they do not take.
fn await_stalled(client: &mut Connection, count: usize) {
    let mut stalled = || {
        let reply = client.command("CLIENT LIST");
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        text.lines().filter(|line| line.contains(" cmd=get ") && !line.contains(" obl=0 ")).count()
    };
    assert!(eventually(PATIENCE, || stalled() >= count), "not all readers are stalled");
}

fn read_all(stream: &mut TcpStream, mut left: usize) {
    let mut chunk = vec![0; 256 * 1024];
    while left > 0 {
        let most = chunk.len().min(left);
        match stream.read(&mut chunk[..most]).expect("the server answers") {
            0 => panic!("the server closed the connection with {left} bytes to come"),
            length => left -= length,
        }
    }
}

fn start() -> Forebay {
    let args = ["--maxclients", "15000"].map(str::to_owned).to_vec();
    Forebay::start(ForebayOptions { args, alone: true, ..ForebayOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"))
}

fn setting(name: &str, otherwise: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn used(client: &mut Connection) -> u64 {
    let reply = client.command("INFO memory");
    let text = String::from_utf8_lossy(reply.text().expect("a text")).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
    line.trim().parse().expect("a number")
}
