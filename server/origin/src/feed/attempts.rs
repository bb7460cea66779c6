//! Following a source of changes, attempt after attempt.

use std::convert::Infallible;

use super::outlet::{End, Outlet};
use crate::session::SessionError;

/// A source of changes that is followed as long as its feed is open.
pub(super) trait Source {
    /// Where its events go.
    fn outlet(&mut self) -> &mut Outlet;

    /// Follows it until something goes wrong.
    fn follow(&mut self) -> impl Future<Output = Result<Infallible, End>> + Send;

    /// It was cut off, or could not be begun.
    fn failed(&mut self, error: &SessionError);

    /// It has to be begun anew.
    fn lost(&mut self, reason: String) {
        tracing::info!(reason, "the change feed begins anew");
    }
}

/// Follows it until the feed is closed, with a pause behind each attempt that has ended.
pub(super) async fn follow_until_closed(mut source: impl Source) {
    loop {
        let closing = source.outlet().closing.clone();
        let end = tokio::select! {
            () = closing.cancelled() => End::Closed,
            Err(end) = source.follow() => end,
        };
        match end {
            End::Closed => return,
            End::Failed(error) => source.failed(&error),
            End::Lost(reason) => source.lost(reason),
        }
        if source.outlet().pause().await.is_err() {
            return;
        }
    }
}
