//! The operators' access: the daemon (`cleave serve`), its HTTP/JSON API, and the control commands that use it.
//!
//! The API takes verbs ([`crate::operator::Verb`]) and answers with the types of [`crate::array::show`]; a refusal is
//! a [`types::ErrorDocument`]. docs/ADMIN-API.md lists the paths.

mod acceptor;
pub(crate) mod address;
mod admission;
mod advice;
mod api;
mod applying;
mod audit;
mod certificate;
pub(crate) mod cli;
pub(crate) mod client;
mod columns;
pub(crate) mod config;
mod contents;
mod credentials;
mod demo;
mod device;
mod digest;
mod ended;
mod entrance;
mod etag;
mod events;
mod extents;
mod extents_text;
mod files;
pub(crate) mod follow;
mod frames;
mod history;
mod http;
mod image;
mod in_band;
mod journal_text;
pub(crate) mod lasting;
mod limiter;
mod listener;
mod log;
mod manual;
mod openapi;
mod operations;
mod outlast;
mod output;
mod places;
mod presence;
mod raid_manager;
mod rights;
mod routes;
mod rules;
mod run;
mod seconds;
mod sentence;
pub(crate) mod serve;
mod stdout;
mod stream;
mod tls;
mod token;
mod tokens;
pub(crate) mod tree;
pub(crate) mod types;

pub use run::{main, parse_by_environment};
