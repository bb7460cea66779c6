//! A socket that several tasks of a worker may use: of a connection with another node.
//!
//! Unlike a client's [`Socket`], which is its one task's, it remembers who waits for it.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mio::event::Event;
use mio::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scheduler::Registered;
use super::socket::{Readiness, Socket};

/// A socket that does not block.
pub(super) struct SharedSocket {
    socket: Socket,
    news: Rc<News>,
    _registered: Registered,
}

/// What the system has told of a shared socket, and who is to hear of it.
#[derive(Default)]
pub(super) struct News {
    readiness: Rc<Readiness>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl News {
    /// Remembers what an event tells, and wakes who waits for that.
    pub(super) fn tell(&self, event: &Event) {
        self.readiness.note(event);
        let has_ended = event.is_error() || event.is_read_closed() || event.is_write_closed();
        let wake = |waiting: &Cell<Option<Waker>>| waiting.take().into_iter().for_each(Waker::wake);
        if event.is_readable() || has_ended {
            wake(&self.reader);
        }
        if event.is_writable() || has_ended {
            wake(&self.writer);
        }
    }
}

impl SharedSocket {
    pub(super) fn new(stream: TcpStream, news: Rc<News>, registered: Registered) -> SharedSocket {
        let socket = Socket::new(stream, Rc::clone(&news.readiness));
        SharedSocket { socket, news, _registered: registered }
    }

    fn socket(&mut self) -> Pin<&mut Socket> {
        Pin::new(&mut self.socket)
    }
}

/// Has the task called when there is news.
fn wait<T>(polled: Poll<T>, waiting: &Cell<Option<Waker>>, context: &Context<'_>) -> Poll<T> {
    if polled.is_pending() {
        waiting.set(Some(context.waker().clone()));
    }
    polled
}

impl AsyncRead for SharedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.socket().poll_read(context, buffer);
        wait(polled, &self.news.reader, context)
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.socket().poll_write(context, bytes);
        wait(polled, &self.news.writer, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A call of the system for one piece costs it less.
        if let [whole] = pieces {
            return self.poll_write(context, whole);
        }
        let polled = self.socket().poll_write_vectored(context, pieces);
        wait(polled, &self.news.writer, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(context)
    }
}
