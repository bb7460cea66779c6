//! `forebay check`, as far as feeds go: what keeps them from telling of everything, and the SQL that makes what they need.

use std::fmt::Write;
use std::time::Duration;

use sqlx::ConnectOptions;

use super::address::Address;
use super::config::FeedConfig;
use super::notify::triggers::Triggers;
use super::outlet::is_wanted;
use super::tables::Survey;
use super::wal::setup::{create, server_fault};
use crate::config::OriginConfig;
use crate::fault::Fault;
use crate::group::{Feed, GroupConfig};
use crate::postgres::session_error;
use crate::session::SessionError;

/// How long the database may take to say what there is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a database says of the feeds that groups have.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    pub(crate) faults: Vec<Fault>,
    /// What makes the publication and the triggers.
    sql: String,
}

/// The SQL that makes what the groups' feeds need in the primary: for whoever may run it, where the feed's own user must not. A feed makes
/// all of it itself if it may, and looks first whether it is there.
///
/// # Errors
/// When the primary cannot be asked.
pub async fn feed_sql(config: &OriginConfig, groups: &[GroupConfig]) -> Result<String, Fault> {
    let examined = examine(&config.url, groups).await;
    examined.map(|examined| examined.sql).map_err(|error| Fault::unplaced("origin", error.to_string(), ""))
}

/// Looks at the tables that groups with feeds name.
pub(crate) async fn examine(url: &str, groups: &[GroupConfig]) -> Result<Examined, SessionError> {
    let feeds = [Feed::Wal, Feed::Notify].map(|feed| (feed, is_wanted(groups, feed)));
    if !url.starts_with("postgres") || feeds.iter().all(|(_, wanted)| !wanted) {
        return Ok(Examined::default());
    }
    let name = FeedConfig::new(0, None).name;
    let address = Address::parse(url, "forebay check").map_err(|problem| SessionError::unfit(problem, ""))?;
    let late = |_| SessionError::Unreachable(format!("the origin did not answer within {PATIENCE:?}"));
    let connecting = tokio::time::timeout(PATIENCE, address.options.connect());
    let mut connection = connecting.await.map_err(late)?.map_err(session_error)?;
    let mut examined = Examined::default();
    for (feed, _) in feeds.into_iter().filter(|(_, wanted)| *wanted) {
        if feed == Feed::Wal {
            examined.faults.extend(server_fault(&mut connection).await?);
        }
        let survey = Survey::make(&mut connection, groups, feed).await?;
        examined.faults.extend(survey.faults.into_iter().chain(survey.advice));
        // Writing to a string cannot fail.
        let _written = match feed {
            Feed::Wal if !survey.tables.is_empty() => {
                writeln!(examined.sql, "{};", create(&name, survey.tables.keys()))
            }
            Feed::Notify => survey
                .tables
                .iter()
                .try_for_each(|(table, columns)| examined.sql.write_str(&Triggers::of(&name, table, columns).sql())),
            Feed::Wal | Feed::Kafka => Ok(()),
        };
    }
    Ok(examined)
}
