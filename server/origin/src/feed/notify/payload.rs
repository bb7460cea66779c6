//! What the triggers send: a JSON object for each changed row.
//!
//! ```text
//! {"x": "743", "s": "public", "t": "prices", "c": ["product_id"], "o": ["7"], "n": ["8"]}
//! ```
//!
//! `x` is the transaction, `s` and `t` are the table, `c` the columns that groups name, `o` and `n` their values in the row as it was and as it
//! is. Without both, any row may have changed: the table was truncated, or the values do not fit into a notification.

use serde::Deserialize;

use crate::feed::mapping::{Cell, OldRow, RowChange};
use crate::snapshot::Xid;

/// One changed row.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Payload {
    x: String,
    pub(super) s: String,
    pub(super) t: String,
    #[serde(default)]
    pub(super) c: Vec<String>,
    o: Option<Vec<Option<String>>>,
    n: Option<Vec<Option<String>>>,
}

impl Payload {
    pub(super) fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(super) fn xid(&self) -> Option<Xid> {
        self.x.parse().map(Xid).ok()
    }

    /// What happened to the row; `None` if any row may have changed.
    pub(super) fn change(&self) -> Option<RowChange<'_>> {
        let old = self.o.as_deref().map(|old| OldRow { is_whole: true, cells: cells(old) });
        match (old, self.n.as_deref().map(cells)) {
            (None, None) => None,
            (None, Some(new)) => Some(RowChange::Insert { new }),
            (Some(old), Some(new)) => Some(RowChange::Update { old: Some(old), new }),
            (Some(old), None) => Some(RowChange::Delete { old }),
        }
    }
}

fn cells(values: &[Option<String>]) -> Vec<Cell<'_>> {
    values.iter().map(|value| value.as_ref().map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_triggers_send_is_read() {
        let read = |rows: &str| {
            let text = format!(r#"{{"x": "4294967301", "s": "public", "t": "prices", "c": ["id", "p"]{rows}}}"#);
            Payload::read(&text).unwrap()
        };
        let update = read(r#", "o": ["1", "7"], "n": ["1", null]"#);
        assert_eq!(update.xid(), Some(Xid(4_294_967_301)));
        let old = OldRow { is_whole: true, cells: vec![Cell::Text(b"1"), Cell::Text(b"7")] };
        let new = vec![Cell::Text(b"1"), Cell::Null];
        assert_eq!(update.change(), Some(RowChange::Update { old: Some(old.clone()), new: new.clone() }));
        assert_eq!(read(r#", "n": ["1", null]"#).change(), Some(RowChange::Insert { new }));
        assert_eq!(read(r#", "o": ["1", "7"], "n": null"#).change(), Some(RowChange::Delete { old }));
        assert_eq!(read("").change(), None);
        assert!(Payload::read("{}").is_err() && Payload::read("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[{}\\[\\]\":,xstcon1 ]{0,40}") {
            if let Ok(payload) = Payload::read(&text) {
                let _ = (payload.xid(), payload.change());
            }
        }
    }
}
