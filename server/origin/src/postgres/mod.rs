//! Loads from Postgres.

mod many;
mod parameter;
mod plan;
mod session;
mod writes;

pub(crate) use plan::PostgresPlan;
pub(crate) use session::{PostgresSession, connect_options, session_error};
pub(crate) use writes::PostgresWrites;
