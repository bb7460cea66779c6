//! A worker's scheduler: one thread that polls the tasks of its connections when the system has news of their sockets.
//!
//! With a general runtime, a third of the instructions of a connection's one small request go into locks, reference counts and
//! timers: those of the socket's readiness, of the task, of the queue between them. Here an event's token is the task. Who is woken
//! otherwise, by another thread or by itself, comes through a list that is looked at several times a round.
//!
//! A connection with another node is several tasks, any of which may use its socket: such a socket has a token of its own, and wakes who waits
//! for it ([`SharedSocket`]).
//!
//! There are no timers here: what sleeps on the thread sleeps by the clock of the runtime that the thread has entered.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Registry, Token};
use parking_lot::Mutex;
use slab::{Slab, VacantEntry};

use super::shared_socket::{News, SharedSocket};
use super::socket::{Readiness, Socket};

/// Events of one round. More are found by the next one.
const EVENTS: usize = 256;

/// The key of the future that a scheduler runs for, and the token of its waker: no task's.
const MAIN: usize = usize::MAX;

/// Tasks of one block of the table.
const BLOCK: usize = 256;

/// How often in a round those are polled that others of the round have woken, before the system is asked for news.
const TURNS: usize = 8;

/// A scheduler that does not run yet.
pub(super) struct Scheduler {
    poll: mio::Poll,
    woken: Arc<Woken>,
}

/// By which tasks are added to a scheduler from its own thread.
#[derive(Clone)]
pub(super) struct Spawner {
    tasks: Rc<Tasks>,
    woken: Arc<Woken>,
}

pub(super) struct Tasks {
    registry: Registry,
    by_key: RefCell<Table>,
}

/// The tasks by their keys. In blocks, for a table in one piece is moved when it grows, and leaves holes of its size behind.
#[derive(Default)]
struct Table {
    /// Each of [`BLOCK`] places. `None` while a task is polled.
    blocks: Vec<Slab<Option<Entry>>>,
}

/// What an event is about.
enum Entry {
    Task(Task),
    Socket(Rc<News>),
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// None without a socket of its own.
    readiness: Option<Rc<Readiness>>,
    waker: Waker,
}

/// What the wakers of a scheduler's tasks and its thread have in common.
struct Woken {
    list: Mutex<List>,
    /// Whether the list may have something. The thread sees what it has listed itself; of others it may hear late, but before it sleeps.
    has_any: AtomicBool,
    alarm: mio::Waker,
}

#[derive(Default)]
struct List {
    tasks: Vec<Arc<TaskWaker>>,
    /// Whether the thread sleeps until something happens; who adds to the list then has to rouse it.
    asleep: bool,
}

/// Wakes one task.
struct TaskWaker {
    key: usize,
    woken: Arc<Woken>,
    /// Whether it is in the list. Both sides exchange it, so that the task sees what was written before it was woken.
    is_listed: AtomicBool,
}

impl Scheduler {
    /// # Errors
    /// When the system does not provide for telling of events.
    pub(super) fn new() -> io::Result<Scheduler> {
        let poll = mio::Poll::new()?;
        let alarm = mio::Waker::new(poll.registry(), Token(MAIN))?;
        Ok(Scheduler { poll, woken: Arc::new(Woken { list: Mutex::default(), has_any: AtomicBool::default(), alarm }) })
    }

    /// Runs on this thread until what `main` makes is done, with `end_round` after each round of tasks. Tasks that are left then are
    /// dropped.
    ///
    /// # Errors
    /// When the system does not tell of events.
    pub(super) fn run<F: Future<Output = ()>>(
        mut self,
        main: impl FnOnce(Spawner) -> F,
        end_round: impl Fn(),
    ) -> io::Result<()> {
        let tasks = Rc::new(Tasks { registry: self.poll.registry().try_clone()?, by_key: RefCell::default() });
        let _all = DroppedTogether(Rc::clone(&tasks));
        let mut main = pin!(main(Spawner { tasks: Rc::clone(&tasks), woken: Arc::clone(&self.woken) }));
        let waker = TaskWaker::waker(MAIN, &self.woken);
        waker.wake_by_ref();
        let mut events = Events::with_capacity(EVENTS);
        let mut called = Vec::new();
        loop {
            let patience = if self.woken.sleep_unless_any() { None } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, patience) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                outcome => outcome?,
            }
            self.woken.take(&mut called);
            tasks.answer(&events);
            for _ in 0..TURNS {
                for task in called.drain(..) {
                    task.is_listed.swap(false, AcqRel);
                    if task.key != MAIN {
                        tasks.poll_woken(task.key);
                    } else if main.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                        return Ok(());
                    }
                }
                end_round();
                if !self.woken.has_any.load(Relaxed) {
                    break;
                }
                self.woken.take(&mut called);
            }
            // What the last turn has called comes first in the next round.
            self.woken.give_back(&mut called);
        }
    }
}

impl Spawner {
    /// Starts the task that `serve` makes of the socket over `stream`, which must not block. It is first polled in the next round.
    ///
    /// # Errors
    /// When the system does not want to tell of the socket.
    pub(super) fn spawn<F>(&self, mut stream: TcpStream, serve: impl FnOnce(Socket) -> F) -> io::Result<()>
    where
        F: Future<Output = ()> + 'static,
    {
        let mut by_key = self.tasks.by_key.borrow_mut();
        let (key, place) = by_key.vacant();
        self.tasks.registry.register(&mut stream, Token(key), Interest::READABLE | Interest::WRITABLE)?;
        let readiness = Rc::<Readiness>::default();
        let waker = TaskWaker::waker(key, &self.woken);
        // A new socket can be written, so there is news of it at once.
        let future = Box::pin(serve(Socket::new(stream, Rc::clone(&readiness))));
        place.insert(Some(Entry::Task(Task { future, readiness: Some(readiness), waker })));
        Ok(())
    }

    /// Starts a task without a socket of its own. It is first polled in the next turn.
    pub(super) fn spawn_beside(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let mut by_key = self.tasks.by_key.borrow_mut();
        let (key, place) = by_key.vacant();
        let waker = TaskWaker::waker(key, &self.woken);
        waker.wake_by_ref();
        place.insert(Some(Entry::Task(Task { future, readiness: None, waker })));
    }

    /// A socket that all tasks of this thread may use, over `stream`, which must not block.
    ///
    /// # Errors
    /// When the system does not want to tell of it.
    pub(super) fn share(&self, mut stream: TcpStream) -> io::Result<SharedSocket> {
        let mut by_key = self.tasks.by_key.borrow_mut();
        let (key, place) = by_key.vacant();
        self.tasks.registry.register(&mut stream, Token(key), Interest::READABLE | Interest::WRITABLE)?;
        let news = Rc::<News>::default();
        place.insert(Some(Entry::Socket(Rc::clone(&news))));
        Ok(SharedSocket::new(stream, news, Registered { key, tasks: Rc::clone(&self.tasks) }))
    }
}

/// Drops all tasks when it is dropped itself: those that can add tasks keep each other.
struct DroppedTogether(Rc<Tasks>);

impl Drop for DroppedTogether {
    fn drop(&mut self) {
        // Outside the borrow, for a task that is dropped gives up its sockets' places.
        let table = self.0.by_key.take();
        drop(table);
    }
}

/// A shared socket's place in the table, which it gives up when this is dropped.
pub(super) struct Registered {
    key: usize,
    tasks: Rc<Tasks>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tasks.by_key.borrow_mut().remove(self.key);
    }
}

impl Table {
    /// A place for a task, and its key.
    fn vacant(&mut self) -> (usize, VacantEntry<'_, Option<Entry>>) {
        let block = self.blocks.iter().position(|block| block.len() < BLOCK).unwrap_or_else(|| {
            self.blocks.push(Slab::with_capacity(BLOCK));
            self.blocks.len() - 1
        });
        let place = self.blocks[block].vacant_entry();
        (block * BLOCK + place.key(), place)
    }

    /// The place of what has not ended.
    #[inline]
    fn get_mut(&mut self, key: usize) -> Option<&mut Option<Entry>> {
        self.blocks.get_mut(key / BLOCK)?.get_mut(key % BLOCK)
    }

    /// Frees a place, unless all were dropped together.
    fn remove(&mut self, key: usize) {
        if let Some(block) = self.blocks.get_mut(key / BLOCK) {
            block.try_remove(key % BLOCK);
        }
    }
}

impl Tasks {
    /// Polls those that the events are about.
    fn answer(&self, events: &Events) {
        for event in events.iter().filter(|event| event.token() != Token(MAIN)) {
            let key = event.token().0;
            match self.take(key) {
                Some(Entry::Task(task)) => {
                    task.readiness.iter().for_each(|readiness| readiness.note(event));
                    self.poll(key, task);
                }
                Some(Entry::Socket(news)) => {
                    news.tell(event);
                    self.put(key, Entry::Socket(news));
                }
                None => {}
            }
        }
    }

    /// Polls a task that was woken, unless it has ended and another one has its key.
    fn poll_woken(&self, key: usize) {
        match self.take(key) {
            Some(Entry::Task(task)) => self.poll(key, task),
            Some(other) => self.put(key, other),
            None => {}
        }
    }

    #[inline]
    fn take(&self, key: usize) -> Option<Entry> {
        self.by_key.borrow_mut().get_mut(key)?.take()
    }

    /// Puts back what was taken.
    #[inline]
    fn put(&self, key: usize, entry: Entry) {
        if let Some(place) = self.by_key.borrow_mut().get_mut(key) {
            *place = Some(entry);
        }
    }

    /// Polls a task. A panic ends it and nothing else.
    fn poll(&self, key: usize, mut task: Task) {
        let mut context = Context::from_waker(&task.waker);
        let over = match catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut context))) {
            Ok(polled) => polled.is_ready(),
            Err(panic) => {
                tracing::error!(panic = told(&*panic), "a connection ended by a panic");
                true
            }
        };
        if over {
            // Before its key may become another's.
            drop(task);
            self.by_key.borrow_mut().remove(key);
        } else {
            self.put(key, Entry::Task(task));
        }
    }
}

impl Woken {
    /// Counts the thread as asleep from now on, if the list is empty. Tells whether it is.
    fn sleep_unless_any(&self) -> bool {
        let mut list = self.list.lock();
        list.asleep = list.tasks.is_empty();
        list.asleep
    }

    /// The thread is awake. Appends the list to `called` and empties it.
    fn take(&self, called: &mut Vec<Arc<TaskWaker>>) {
        let mut list = self.list.lock();
        list.asleep = false;
        self.has_any.store(false, Relaxed);
        called.append(&mut list.tasks);
    }

    /// Lists those again that were taken and not polled.
    fn give_back(&self, called: &mut Vec<Arc<TaskWaker>>) {
        if !called.is_empty() {
            self.list.lock().tasks.append(called);
            self.has_any.store(true, Relaxed);
        }
    }

    fn rouse(&self) {
        if let Err(error) = self.alarm.wake() {
            tracing::error!(%error, "a worker cannot be roused");
        }
    }
}

impl TaskWaker {
    fn waker(key: usize, woken: &Arc<Woken>) -> Waker {
        Waker::from(Arc::new(TaskWaker { key, woken: Arc::clone(woken), is_listed: AtomicBool::new(false) }))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<TaskWaker>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<TaskWaker>) {
        if self.is_listed.swap(true, AcqRel) {
            return;
        }
        let mut list = self.woken.list.lock();
        list.tasks.push(Arc::clone(self));
        self.woken.has_any.store(true, Relaxed);
        let asleep = std::mem::take(&mut list.asleep);
        drop(list);
        if asleep {
            self.woken.rouse();
        }
    }
}

/// What a panic says.
fn told(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

#[cfg(test)]
mod tests;
