//! Threads with connections of their own.
//!
//! A request that goes by way of another thread wakes that one, and is woken by it again; at both ends of a connection that took several
//! times what all the rest of forwarding a request does. So a thread that serves clients is a lane: it has a connection of its own to each
//! peer, and serves some of those that peers have made.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite};

/// A thread's own tasks and sockets.
pub trait Lane {
    /// Runs a task on this thread, until it ends or the lane does.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>);

    /// Makes the thread hear of a socket, which must not block.
    ///
    /// # Errors
    /// When the system does not want to tell of it.
    fn take_up(&self, stream: std::net::TcpStream) -> io::Result<Box<dyn LaneStream>>;
}

/// A socket that one thread uses alone; any of its tasks may.
pub trait LaneStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> LaneStream for S {}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// The lane that this thread is.
#[derive(Clone)]
struct Here {
    number: usize,
    lane: Rc<dyn Lane>,
}

/// A thread's being a lane, which ends with this.
pub struct Entered(());

/// Makes this thread the lane of that number, of those that [`Peers`](super::Peers) counts with.
pub fn enter(number: usize, lane: Rc<dyn Lane>) -> Entered {
    HERE.set(Some(Here { number, lane }));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(None);
    }
}

/// The number of the lane that this thread is, if it is one.
#[inline]
pub(super) fn number() -> Option<usize> {
    HERE.with_borrow(|here| here.as_ref().map(|here| here.number))
}

/// The lane that this thread is, if it is one.
pub(super) fn here() -> Option<Rc<dyn Lane>> {
    HERE.with_borrow(|here| here.as_ref().map(|here| Rc::clone(&here.lane)))
}

/// Runs what HTTP/2 does beside on the lane.
#[derive(Clone)]
pub(crate) struct LaneExecutor(pub(crate) Rc<dyn Lane>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LaneExecutor {
    fn execute(&self, task: F) {
        self.0.spawn(Box::pin(task));
    }
}
