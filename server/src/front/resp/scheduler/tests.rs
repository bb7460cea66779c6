use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;

use super::*;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// A scheduler on a thread of its own, which serves every socket alike.
struct Thread {
    arrivals: UnboundedSender<std::net::TcpStream>,
    thread: JoinHandle<()>,
}

impl Thread {
    fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(Socket) -> F + Send + 'static) -> Thread {
        let (arrivals, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        let scheduler = Scheduler::new().expect("a scheduler");
        let work = async move |spawner: Spawner| {
            let tasks = TaskTracker::new();
            while let Some(stream) = arrived.recv().await {
                let spawned = spawner.spawn(TcpStream::from_std(stream), |socket| tasks.track_future(serve(socket)));
                spawned.expect("a task");
            }
            tasks.close();
            tasks.wait().await;
        };
        let thread = std::thread::spawn(|| scheduler.run(work, || {}).expect("events"));
        Thread { arrivals, thread }
    }

    fn take_up(&self, stream: std::net::TcpStream) {
        stream.set_nonblocking(true).expect("set");
        self.arrivals.send(stream).expect("it runs");
    }

    fn connect(&self) -> std::net::TcpStream {
        let (client, server) = pair();
        self.take_up(server);
        client
    }

    /// Waits for its tasks.
    fn end(self) {
        drop(self.arrivals);
        self.thread.join().expect("no panic");
    }
}

/// Two ends of a connection; the first one waits no longer than it may.
fn pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let client = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    client.set_read_timeout(Some(DEADLINE)).expect("set");
    (client, listener.accept().expect("accepted").0)
}

async fn echo(mut socket: Socket) {
    let mut byte = [0];
    while let Ok(1) = socket.read(&mut byte).await {
        assert_ne!(byte, *b"!", "on purpose");
        socket.write_all(&byte).await.expect("written");
    }
}

fn is_answered(client: &mut std::net::TcpStream) {
    let mut answer = [0];
    client.write_all(b"x").expect("written");
    client.read_exact(&mut answer).expect("an answer");
}

#[test]
fn peers_are_answered_until_they_end() {
    let thread = Thread::start(echo);
    let mut clients = [thread.connect(), thread.connect()];
    for _ in 0..3 {
        clients.iter_mut().for_each(is_answered);
    }
    drop(clients);
    thread.end();
}

#[test]
fn what_came_before_the_end_is_read_and_then_the_end() {
    let (told, received) = mpsc::channel();
    let thread = Thread::start(move |mut socket| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            let end = socket.read_to_end(&mut bytes).await;
            told.send((bytes, end.is_ok())).expect("somebody listens");
        }
    });
    let (mut client, server) = pair();
    client.write_all(b"the last words").expect("written");
    client.shutdown(Shutdown::Write).expect("ended");
    // Both are there before the first event.
    server.peek(&mut [0]).expect("they are");
    thread.take_up(server);
    assert_eq!(received.recv_timeout(DEADLINE), Ok((b"the last words".to_vec(), true)));
    thread.end();
}

#[test]
fn a_slow_reader_gets_everything() {
    const BYTES: usize = 32 << 20;
    let thread = Thread::start(async |mut socket| {
        socket.write_all(&vec![b'x'; BYTES]).await.expect("written");
        socket.shutdown().await.expect("ended");
    });
    let mut client = thread.connect();
    let mut all = Vec::new();
    client.read_to_end(&mut all).expect("all of it");
    assert_eq!(all.len(), BYTES);
    thread.end();
}

#[test]
fn a_panic_ends_one_connection() {
    let thread = Thread::start(echo);
    let (mut first, mut second) = (thread.connect(), thread.connect());
    is_answered(&mut first);
    first.write_all(b"!").expect("written");
    assert_eq!(first.read(&mut [0]).expect("an end"), 0);
    is_answered(&mut second);
    drop(second);
    thread.end();
}

#[test]
fn a_task_that_wakes_itself_all_the_time_keeps_nobody_waiting() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = Thread::start(move |mut socket| {
        let stop = Arc::clone(&stopped);
        async move {
            let mut order = *b"spin";
            socket.read_exact(&mut order).await.expect("an order");
            if order == *b"stop" {
                stop.store(true, Relaxed);
            }
            socket.write_all(b"yes ").await.expect("written");
            while !stop.load(Relaxed) {
                tokio::task::yield_now().await;
            }
            socket.write_all(b".").await.expect("written");
        }
    });
    let (mut spinning, mut stopping) = (thread.connect(), thread.connect());
    for (client, order) in [(&mut spinning, b"spin"), (&mut stopping, b"stop")] {
        client.write_all(order).expect("written");
        client.read_exact(&mut [0; 4]).expect("it has begun");
    }
    for client in [&mut spinning, &mut stopping] {
        client.read_exact(&mut [0]).expect("an answer");
    }
    thread.end();
}

#[test]
fn sleepers_are_woken_by_the_runtime_that_the_thread_has_entered() {
    let clock = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
    let _entered = clock.enter();
    let scheduler = Scheduler::new().expect("a scheduler");
    let slept = async |_: Spawner| tokio::time::sleep(Duration::from_millis(1)).await;
    scheduler.run(slept, || {}).expect("events");
}

/// A scheduler that echoes on one socket by two tasks, of which one reads and one writes, until the reader ends.
fn echo_by_two(server: std::net::TcpStream, dropped: Arc<()>) -> JoinHandle<()> {
    server.set_nonblocking(true).expect("set");
    let scheduler = Scheduler::new().expect("a scheduler");
    let work = async move |spawner: Spawner| {
        let socket = spawner.share(TcpStream::from_std(server)).expect("registered");
        let (mut reading, mut writing) = tokio::io::split(socket);
        let (bytes, mut to_write) = tokio::sync::mpsc::unbounded_channel();
        let (ended, end) = tokio::sync::oneshot::channel();
        let kept = spawner.clone();
        spawner.spawn_beside(Box::pin(async move {
            // A task that could add others, and never ends.
            let _kept = (kept, dropped);
            while let Some(byte) = to_write.recv().await {
                writing.write_all(&[byte]).await.expect("written");
            }
            std::future::pending().await
        }));
        spawner.spawn_beside(Box::pin(async move {
            let mut byte = [0];
            while let Ok(1) = reading.read(&mut byte).await {
                bytes.send(byte[0]).expect("it is written");
            }
            ended.send(()).expect("waited for");
        }));
        end.await.expect("it ended");
    };
    std::thread::spawn(|| scheduler.run(work, || {}).expect("events"))
}

#[test]
fn tasks_share_a_socket_and_end_with_their_thread() {
    let (mut client, server) = pair();
    let dropped = Arc::new(());
    let thread = echo_by_two(server, Arc::clone(&dropped));
    (0..100).for_each(|_| is_answered(&mut client));
    client.shutdown(Shutdown::Write).expect("ended");
    thread.join().expect("no panic");
    assert_eq!(Arc::strong_count(&dropped), 1, "a task was left over");
    let mut rest = [0];
    assert_eq!(client.read(&mut rest).expect("the end"), 0, "the socket is closed");
}
