//! Loads from Postgres.

mod parameter;
mod plan;
mod session;

pub(crate) use plan::PostgresPlan;
pub(crate) use session::{PostgresSession, connect_options, session_error};
