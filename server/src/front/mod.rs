//! The doors: how requests come in.

pub mod http;
pub mod peer;
pub mod resp;
