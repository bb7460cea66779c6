//! Making an SQLite database, for whoever has rows and no database yet.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor};

/// A new database file that is being filled.
///
/// Nothing is safe before [`EmbeddedDatabase::finish`]: for speed a crash may leave a broken file.
#[derive(Debug)]
pub struct EmbeddedDatabase {
    connection: SqliteConnection,
}

/// Why a database could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the SQLite database cannot be made: {0}")]
pub struct EmbeddedError(#[from] sqlx::Error);

impl EmbeddedDatabase {
    /// Creates the file; one that is there already is opened as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn create(path: &Path) -> Result<EmbeddedDatabase, EmbeddedError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .disable_statement_logging();
        Ok(EmbeddedDatabase { connection: options.connect().await? })
    }

    /// Runs statements without parameters.
    ///
    /// # Errors
    /// When SQLite refuses one.
    pub async fn run(&mut self, statements: &'static str) -> Result<(), EmbeddedError> {
        self.connection.execute(statements).await?;
        Ok(())
    }

    /// Runs one statement with one parameter. Many rows at once are a JSON array that the statement takes apart by `json_each($1)`.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub async fn run_with(&mut self, statement: &'static str, parameter: &str) -> Result<(), EmbeddedError> {
        sqlx::query(statement).bind(parameter).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Closes the file; it is whole now.
    ///
    /// # Errors
    /// When it cannot be closed.
    pub async fn finish(self) -> Result<(), EmbeddedError> {
        Ok(self.connection.close().await?)
    }
}
