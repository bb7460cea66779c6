//! The password by HTTP: `Authorization: Bearer <password>`, or Basic with any or no user name but another user's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::engine::Engine;

/// Lets a request through that brings the password, if there is one.
pub(super) async fn require(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    let settings = &engine.node().settings;
    let brought = request.headers().get(header::AUTHORIZATION).and_then(|value| password(value.as_bytes()));
    let admitted = !settings.needs_password() || brought.is_some_and(|password| settings.admits(&password));
    match admitted {
        true => next.run(request).await,
        false => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"forebay\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, challenge, "a password is required\n").into_response()
        }
    }
}

/// The password in a header's value. There is one user, the default one.
fn password(value: &[u8]) -> Option<Vec<u8>> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, credentials) = (&value[..at], value[at..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(credentials.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
    matches!(user, b"" | b"default").then(|| password.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_bring_the_password() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text)).into_bytes();
        assert_eq!(password(b"Bearer s3cret").as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(password(b"bearer  s3cret ").as_deref(), Some(&b"s3cret"[..]));
        assert_eq!(password(&basic(":a:b")).as_deref(), Some(&b"a:b"[..]));
        assert_eq!(password(&basic("default:x")).as_deref(), Some(&b"x"[..]));
        assert_eq!(password(&basic("root:x")), None);
    }

    #[test]
    fn nonsense_brings_none() {
        for value in [&b""[..], b"Bearer", b"Basic !!!", b"Basic eA==", b"Digest x", b"\xff \xff"] {
            assert_eq!(password(value), None, "{value:?}");
        }
    }
}
