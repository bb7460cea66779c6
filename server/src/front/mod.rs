//! The doors: how requests come in.

pub mod http;
pub mod resp;
