//! A connection's socket, as a worker's [`Scheduler`](super::scheduler::Scheduler) knows it.
//!
//! The system tells of changes only, so what it has told is remembered until a read or a write finds the opposite. Socket and
//! scheduler are on one thread, and a task that waits for its socket is polled whenever there is news of it: there is nothing to
//! lock, and nobody to register with.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A socket that does not block. To be read and written by the task that it was given to, and by no other.
pub(super) struct Socket {
    stream: TcpStream,
    readiness: Rc<Readiness>,
}

/// What a connection wants of its socket beside reading and writing.
pub(super) trait Line {
    /// Has the next read ask the system, and not only remember what it has told.
    fn look_again(&self);

    /// Has the end be a reset, whatever the peer has read until then.
    fn end_by_reset(&self);
}

/// What the system has told of a socket.
#[derive(Default)]
pub(super) struct Readiness {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer has ended, which is told once, and possibly before its last bytes were read.
    ended: Cell<bool>,
}

impl Readiness {
    /// Remembers what an event tells.
    #[inline]
    pub(super) fn note(&self, event: &Event) {
        let ended = event.is_read_closed() || event.is_error();
        self.ended.set(self.ended.get() || ended);
        self.readable.set(self.readable.get() || event.is_readable() || ended);
        self.writable.set(self.writable.get() || event.is_writable() || event.is_write_closed() || ended);
    }

    /// A read brought less than it had room for, or nothing: only an end could still be read, if there was one.
    #[inline]
    fn drained(&self) {
        self.readable.set(self.ended.get());
    }

    /// A write took less than it was given, or nothing.
    #[inline]
    fn full(&self) {
        self.writable.set(false);
    }
}

impl Socket {
    /// A registered socket, and where news of it is noted.
    pub(super) fn new(stream: TcpStream, readiness: Rc<Readiness>) -> Socket {
        Socket { stream, readiness }
    }

    /// Notes what a write of `len` bytes came to.
    #[inline]
    fn wrote(&self, len: usize, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        match result {
            Ok(written) => {
                if written < len {
                    self.readiness.full();
                }
                Poll::Ready(Ok(written))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.full();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Line for Socket {
    fn look_again(&self) {
        self.readiness.readable.set(true);
    }

    fn end_by_reset(&self) {
        if let Err(error) = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)) {
            tracing::warn!(%error, "a connection cannot be reset");
        }
    }
}

impl Line for TlsStream<Socket> {
    fn look_again(&self) {
        self.get_ref().0.look_again();
    }

    fn end_by_reset(&self) {
        self.get_ref().0.end_by_reset();
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.readiness.readable.get() {
            return Poll::Pending;
        }
        let room = buffer.remaining();
        // The system call itself: the one of the C library may be cancelled, which takes it as long as reading a short request.
        // SAFETY: `recv` leaves what was initialised as it is.
        let received = recv(&self.stream, unsafe { buffer.unfilled_mut() }, RecvFlags::empty()).map(|(_, bytes)| bytes);
        match received {
            Ok(bytes) => {
                if bytes < room {
                    self.readiness.drained();
                }
                // SAFETY: the system has written as many bytes from the beginning of the room on.
                unsafe { buffer.assume_init(bytes) };
                buffer.advance(bytes);
                Poll::Ready(Ok(()))
            }
            Err(Errno::AGAIN) => {
                self.readiness.drained();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.readiness.writable.get() {
            return Poll::Pending;
        }
        let sent = send(&self.stream, bytes, SendFlags::NOSIGNAL);
        self.wrote(bytes.len(), sent.map_err(io::Error::from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.readiness.writable.get() {
            return Poll::Pending;
        }
        let written = (&self.stream).write_vectored(pieces);
        self.wrote(pieces.iter().map(|piece| piece.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}
