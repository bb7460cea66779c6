//! Errors that trying again does not help against.

use crate::fault::Fault;
use crate::invalidation::Name;
use crate::session::SessionError;

/// An error of the server that somebody has to do something about, as a fault that says what; `None` if trying again may help.
pub(crate) fn lasting_fault(error: &SessionError, user: &str) -> Option<Fault> {
    let (code, message, hint) = match error {
        SessionError::Statement { code, message, hint } => (code.as_str(), message.clone(), hint.clone()),
        SessionError::TooSlow => ("57014", error.to_string(), String::new()),
        _ => return None,
    };
    let name = Name(user);
    let what_to_do = match code {
        "42501" => format!(
            "run: ALTER ROLE {name} REPLICATION; (Amazon RDS: GRANT rds_replication TO {name};) and GRANT CREATE ON DATABASE … TO {name};"
        ),
        "28P01" | "28000" => format!(
            "are user and password right, and does pg_hba.conf let \"{user}\" in for this database, with replication connections?"
        ),
        "3D000" => "is the database's name right in the origin's URL?".to_owned(),
        "53400" => "run: ALTER SYSTEM SET max_replication_slots = 20; then restart the server; or drop slots that nobody uses".to_owned(),
        "53300" => "raise max_wal_senders or max_connections, and restart the server".to_owned(),
        "55000" | "42704" | "58P01" | "55006" => String::new(),
        "57014" => "a slot can be made when the transactions that are open have ended: \
                    SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL; and pg_prepared_xacts"
            .to_owned(),
        "55P03" => "somebody holds a lock on a table that is to be published: try again, or see pg_locks".to_owned(),
        _ if hint.is_empty() => return None,
        _ => hint.clone(),
    };
    let hint = if what_to_do.is_empty() { hint } else { what_to_do };
    Some(Fault::unplaced("feed", message, hint))
}
