//! What the database refuses for good, for somebody to look at: a line of JSON each.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use forebay_origin::NewValue;
use forebay_store::UnixMillis;
use serde_json::{Map, Value, json};

use super::record::Changes;

/// Its name within the data directory.
pub const FILE: &str = "dead-letters.jsonl";

/// One write that was refused.
pub struct Letter<'l> {
    pub at: UnixMillis,
    pub group: &'l str,
    pub key: &'l Bytes,
    pub changes: &'l Changes,
    pub error: &'l str,
}

/// Adds them to the file in the directory, synced.
///
/// # Errors
/// When that cannot be done.
pub fn add(directory: &Path, letters: &[Letter<'_>]) -> io::Result<()> {
    let mut lines = Vec::new();
    for letter in letters {
        serde_json::to_writer(&mut lines, &line(letter))?;
        lines.push(b'\n');
    }
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join(FILE))?;
    file.write_all(&lines)?;
    file.sync_data()
}

fn line(letter: &Letter<'_>) -> Value {
    let Letter { at, group, key, changes, error } = letter;
    let value = match &changes.saves {
        None => Value::Null,
        Some(NewValue::Whole(value)) => text(value),
        Some(NewValue::Fields(fields)) => {
            let fields = fields.iter().map(|(field, value)| {
                (String::from_utf8_lossy(field).into_owned(), value.as_ref().map_or(Value::Null, text))
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
    };
    json!({ "at_ms": at, "group": group, "key": text(key), "removes": changes.removes, "value": value, "error": error })
}

/// What is not text is told as base64.
fn text(bytes: &Bytes) -> Value {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_is_a_line_of_json() {
        let directory = tempfile::tempdir().unwrap();
        let fields = vec![("a".into(), Some("1\n".into())), ("b".into(), None)];
        let all = [
            Changes { removes: false, saves: Some(NewValue::Whole(Bytes::from_static(b"\xff"))) },
            Changes { removes: true, saves: Some(NewValue::Fields(fields)) },
        ];
        for changes in &all {
            let key = Bytes::from_static(b"k:1");
            let letter = Letter { at: 7, group: "k", key: &key, changes, error: "no" };
            add(directory.path(), &[letter]).unwrap();
        }
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["value"]["base64"], "/w==");
        assert_eq!(lines[1]["value"], json!({ "a": "1\n", "b": null }));
        assert_eq!((&lines[1]["removes"], &lines[0]["error"]), (&json!(true), &json!("no")));
    }
}
