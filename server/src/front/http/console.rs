//! The page at `/`: what the node does, in figures that renew themselves.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Response};

use crate::engine::Engine;
use crate::telemetry::figures::Page;

/// Text for a terminal, the same text as a page for a browser.
pub(super) async fn page(State(engine): State<Arc<Engine>>, headers: HeaderMap) -> Response {
    let text = Page(engine.node()).to_string();
    match wants_html(&headers) {
        true => Html(html(&text)).into_response(),
        false => text.into_response(),
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"1\">\
         <title>Forebay</title><style>body{{margin:2em;font:16px/1.5 monospace;color-scheme:light dark}}</style><pre>{text}</pre>"
    )
}
