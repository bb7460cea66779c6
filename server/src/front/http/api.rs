//! `/api?key=`: one key by HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api?key=K` | 200 and the value; a hash as a JSON object. 404 `K not exist` |
//! | `PUT /api?key=K` | 200 `OK`: the body is the string value, as `SET` would write it |
//! | `DELETE /api?key=K` | 200 and how many keys were removed, 0 or 1 |
//!
//! 400 without a key, 401 without the password, 413 for a body above `proto-max-bulk-len`, 503 when neither the cache nor the origin can
//! answer, with the error line as the body. A value of a `json` group is `application/json`; any other is `text/plain` when it is UTF-8
//! and `application/octet-stream` when it is not.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forebay_origin::Shape;
use forebay_resp::{Args, Reply};

use super::answer::{Answer, Fields};
use super::serve::Ends;
use crate::clients::Client;
use crate::engine::Engine;
use crate::session::{self, Session};

/// How long a client may take to send a value.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

type Door = State<Arc<Engine>>;

pub(super) async fn get(State(engine): Door, ends: Extension<Ends>, RawQuery(query): RawQuery) -> Response {
    let Some(key) = key_of(query.as_deref()) else {
        return no_key();
    };
    let mut answer = run(&engine, *ends, &[b"GET", &key]).await;
    if answer.is_wrong_type() {
        answer = run(&engine, *ends, &[b"HGETALL", &key]).await;
    }
    match answer {
        Answer::Value(value) => {
            let kind = content_type(&engine, *ends, &key, &value).await;
            body(kind, value)
        }
        Answer::Array(items) => match serde_json::to_vec(&Fields(&items)) {
            Ok(json) => body(JSON, json.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        Answer::Null => text(StatusCode::NOT_FOUND, format!("{} not exist", String::from_utf8_lossy(&key))),
        other => unexpected(other),
    }
}

pub(super) async fn put(
    State(engine): Door,
    ends: Extension<Ends>,
    RawQuery(query): RawQuery,
    content: Body,
) -> Response {
    let Some(key) = key_of(query.as_deref()) else {
        return no_key();
    };
    let limit = engine.node().settings.proto_max_bulk_len.load(Relaxed);
    let value = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(content, limit)).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => return bad_body(&error, limit),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the value did not arrive in time\n"),
    };
    match run(&engine, *ends, &[b"SET", &key, &value]).await {
        Answer::Status(_) => text(StatusCode::OK, "OK\n"),
        other => unexpected(other),
    }
}

pub(super) async fn delete(State(engine): Door, ends: Extension<Ends>, RawQuery(query): RawQuery) -> Response {
    let Some(key) = key_of(query.as_deref()) else {
        return no_key();
    };
    match run(&engine, *ends, &[b"DEL", &key]).await {
        Answer::Integer(removed) => text(StatusCode::OK, format!("{removed}\n")),
        other => unexpected(other),
    }
}

/// Runs a command as a RESP connection would have it run, in a session of its own.
async fn run(engine: &Engine, ends: Ends, arguments: &[&[u8]]) -> Answer {
    let node = engine.node();
    let now = node.clock.unix_millis();
    let client = Arc::new(Client::unlisted(ends.peer, ends.local, now));
    // The password was asked for by HTTP's own means.
    let mut session = Session::new(client, node.http_lane(), true, session::Door::Open);
    session.now = now;
    let mut reply = Reply::new();
    // One request, one session: there is no connection that a step could want to be closed.
    let _step = engine.execute(&mut session, Args::from(arguments), &mut reply).await;
    if let Some(recorded) = session.take_unacknowledged() {
        if !engine.acknowledged(&recorded).await {
            return Answer::Error("CLUSTERDOWN too few copies hold the write: it may or may not stay".to_owned());
        }
    }
    match engine.still_owns(&mut session) {
        true => Answer::read(reply),
        false => {
            Answer::Error("CLUSTERDOWN this node has lost its lease: the answer may not be true any more".to_owned())
        }
    }
}

/// The key of a query string, percent-decoded: any bytes but none at all.
fn key_of(query: Option<&str>) -> Option<Vec<u8>> {
    let encoded = query?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    let spaced = encoded.replace('+', " ");
    let key: Cow<'_, [u8]> = percent_encoding::percent_decode_str(&spaced).into();
    (!key.is_empty()).then(|| key.into_owned())
}

async fn content_type(engine: &Engine, ends: Ends, key: &[u8], value: &[u8]) -> &'static str {
    let node = engine.node();
    let is_json = match node.is_frontend() {
        // Nodes know the groups. They are not asked about what cannot be JSON.
        true => may_be_json(value) && is_of_a_json_group(&run(engine, ends, &[b"FOREBAY.EXPLAIN", key]).await),
        false => {
            let origin = node.origin.as_ref();
            let shape = origin.and_then(|origin| Some(origin.groups().rules_of(key)?.group.as_));
            shape == Some(Shape::Json)
        }
    };
    match is_json {
        true => JSON,
        false if std::str::from_utf8(value).is_ok() => TEXT,
        false => BYTES,
    }
}

/// By its first character.
fn may_be_json(value: &[u8]) -> bool {
    value.trim_ascii_start().first().is_some_and(|first| b"{[\"-0123456789tfn".contains(first))
}

/// By the names and values that FOREBAY.EXPLAIN tells.
fn is_of_a_json_group(explanation: &Answer) -> bool {
    let Answer::Array(facts) = explanation else { return false };
    facts.chunks_exact(2).any(|fact| fact[0] == "as" && fact[1] == "json")
}

fn no_key() -> Response {
    text(StatusCode::BAD_REQUEST, "name a key: /api?key=…\n")
}

fn bad_body(error: &axum::Error, limit: usize) -> Response {
    use std::error::Error;
    let is_too_long = error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    match is_too_long {
        true => text(StatusCode::PAYLOAD_TOO_LARGE, format!("a value may have {limit} bytes\n")),
        false => text(StatusCode::BAD_REQUEST, format!("the value did not arrive: {error}\n")),
    }
}

/// Errors, and replies that these commands do not give.
fn unexpected(answer: Answer) -> Response {
    let Answer::Error(line) = answer else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "an unexpected reply\n");
    };
    let status = match line.split(' ').next() {
        Some("ORIGINDOWN" | "ORIGINERR" | "CLUSTERDOWN" | "TRYAGAIN" | "OOM") => StatusCode::SERVICE_UNAVAILABLE,
        Some("WRONGTYPE") => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, format!("{line}\n"))
}

fn text(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Response {
    (status, text.into()).into_response()
}

fn body(kind: &'static str, value: Bytes) -> Response {
    // A browser must not take what some client stored for a page.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, value).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_bytes_percent_encoded() {
        assert_eq!(key_of(Some("key=city%3A1")).as_deref(), Some(&b"city:1"[..]));
        assert_eq!(key_of(Some("a=1&key=%FF%00+x&b=2")).as_deref(), Some(&b"\xff\x00 x"[..]));
        assert_eq!(key_of(Some("key=a=b%26c")).as_deref(), Some(&b"a=b&c"[..]));
    }

    #[test]
    fn an_explanation_tells_of_a_json_group() {
        let facts = |texts: &[&'static str]| {
            Answer::Array(texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect())
        };
        assert!(is_of_a_json_group(&facts(&["slot", "7", "group", "product", "as", "json"])));
        assert!(!is_of_a_json_group(&facts(&["slot", "7", "group", "as", "as", "hash"])));
        assert!(!is_of_a_json_group(&Answer::Error("CLUSTERDOWN no".to_owned())));
        assert!([" {}", "[1]", "-1", "true", "\"x\""].iter().all(|json| may_be_json(json.as_bytes())));
        assert!(["", "Anvil", "\u{fffd}"].iter().all(|text| !may_be_json(text.as_bytes())));
    }

    #[test]
    fn no_key_is_no_key() {
        for query in [None, Some(""), Some("key"), Some("key="), Some("akey=1"), Some("KEY=1")] {
            assert_eq!(key_of(query), None, "{query:?}");
        }
    }
}
