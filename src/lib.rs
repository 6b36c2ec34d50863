//! `meshstore`: a Raft-replicated storage node for service meshes.
//!
//! This page is the table of contents, bottom up: a module imports only what stands above it here
//! (`tests/tidy.rs` holds the table). Without the feature `server` the crate is the client library.

pub mod error;
pub mod limits;
#[cfg(feature = "server")]
pub mod metrics;
pub mod model;
pub mod proto;

pub mod client;
pub use client::Client;
pub use error::{Error, Result};

pub mod contract;
pub use contract::Storage;

#[cfg(feature = "server")]
pub mod environment;

#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod security;

#[cfg(feature = "server")]
pub mod layers;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod state;
#[cfg(feature = "server")]
pub mod storage;

#[cfg(feature = "server")]
pub mod backends;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;

#[cfg(feature = "cli")]
pub mod cli;
