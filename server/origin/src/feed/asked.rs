//! What a primary says of itself.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::postgres::session_error;
use crate::session::SessionError;
use crate::snapshot::Snapshot;

/// What the server says of itself.
pub(super) struct Asked {
    pub(super) snapshot: Snapshot,
    /// Another one has another number after it took over.
    pub(super) timeline: String,
}

pub(super) async fn ask(control: &mut PgConnection) -> Result<Asked, SessionError> {
    let sql = "SELECT pg_current_snapshot()::text, left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let row = sqlx::query(sql).fetch_one(control).await.map_err(session_error)?;
    let text: String = row.try_get(0).map_err(session_error)?;
    let snapshot = text.parse().map_err(|_| SessionError::unfit(format!("`{text}` is no snapshot"), ""))?;
    Ok(Asked { snapshot, timeline: row.try_get(1).map_err(session_error)? })
}
