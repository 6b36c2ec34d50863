//! Each promise of the core in one small test. These can never change: log entries that were written under them
//! replay under every later version.

mod changes;
mod compares;
mod expiry;
mod guards;
mod history;
mod hostile;
mod operations;
mod references;
mod scopes;
mod sessions;
mod time;
mod unique;
mod write_once;
