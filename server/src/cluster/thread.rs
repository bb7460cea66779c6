//! The thread of the connections to other nodes that are no worker's: for requests that come by HTTP, and for feeds of copies.
//!
//! One thread has all of them. A request that is forwarded passes four tasks of gRPC on its way and back; on a runtime of several threads each
//! of them was woken on another one, and that took more time than all the rest.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// It ends when this is dropped, or earlier by [`PeerThread::stop`].
pub struct PeerThread {
    handle: Handle,
    stop: CancellationToken,
}

impl PeerThread {
    /// # Errors
    /// When the system has no thread to give.
    pub fn start() -> io::Result<PeerThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        thread::Builder::new().name("peers".to_owned()).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(PeerThread { handle, stop })
    }

    /// To have something run there.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all connections with other nodes.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for PeerThread {
    fn drop(&mut self) {
        self.stop();
    }
}
