//! The flags that all commands share, and what they make: a client and an output.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{failure::Failure, output::Output};
use crate::{
    Client,
    client::{
        Builder, Fence, ReadMode, Tls,
        connection::{self, SCHEME},
    },
};

/// A token itself, for where there are no files. As a flag everybody on the machine could read it.
const TOKEN: &str = "MESHSTORE_TOKEN";

#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Where nodes listen for clients, one is enough to find the others; or a connection string, like
    /// meshstore://host1,host2/?read=stale&max_age=5s
    #[arg(
        long,
        global = true,
        env = "MESHSTORE_ENDPOINTS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(super) endpoints: Vec<String>,
    /// Answer with one JSON value on standard output, and errors as JSON on standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// How fresh reads must be: linearizable (the default), stale[:AGE] (not older; 5s if left out), or
    /// at-least:REVISION
    #[arg(long, global = true, value_name = "MODE", value_parser = read_mode, help_heading = "Global options")]
    pub(super) read: Option<ReadMode>,
    /// How long a call may take with all its retries, like 500ms, 10s (if nothing is said) or 2m
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = duration,
        help_heading = "Global options"
    )]
    timeout: Option<Duration>,
    /// Only while a lock is held with this token; a write is refused otherwise
    #[arg(long, global = true, value_name = "LOCK:TOKEN", value_parser = fence, help_heading = "Global options")]
    fence: Option<Fence>,
    // Commands have arguments of their own that are called `key`: the names of these are longer.
    /// The certificate of the cluster's authority; with it TLS is spoken, without it plain text
    #[arg(long = "ca", global = true, env = "MESHSTORE_CA", value_name = "FILE", help_heading = "Global options")]
    pub(super) tls_ca: Option<PathBuf>,
    /// The certificate that says who you are
    #[arg(long = "cert", global = true, env = "MESHSTORE_CERT", value_name = "FILE", help_heading = "Global options")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long = "key", global = true, env = "MESHSTORE_KEY", value_name = "FILE", help_heading = "Global options")]
    pub(super) tls_key: Option<PathBuf>,
    /// A file with the token that says who you are; or put the token itself into MESHSTORE_TOKEN
    #[arg(long, global = true, env = "MESHSTORE_TOKEN_FILE", value_name = "FILE", help_heading = "Global options")]
    pub(super) token_file: Option<PathBuf>,
}

/// Commands that may be part of a transaction.
#[derive(Args, Clone, Debug)]
pub(super) struct Within<C: Subcommand> {
    /// The transaction that it is part of, as `meshstore kv begin` gave it
    #[arg(long, global = true, env = "MESHSTORE_TRANSACTION", value_name = "ID", hide_env_values = true)]
    pub(super) transaction: Option<String>,
    #[command(subcommand)]
    pub(super) command: C,
}

impl Options {
    /// A client of the cluster that the flags name, as whom they say.
    pub(super) fn client(&self) -> Result<Builder, Failure> {
        let mut builder = match self.endpoints.first() {
            // Its hosts are separated as endpoints are.
            Some(first) if first.starts_with(SCHEME) => Builder::parse(&self.endpoints.join(","))?,
            _ => Client::builder().endpoints(&self.endpoints),
        };
        // Flags win over what a connection string says.
        if let Some(timeout) = self.timeout {
            builder = builder.deadline(timeout);
        }
        if let Some(mode) = self.read {
            builder = builder.read_mode(mode);
        }
        let Some(ca) = &self.tls_ca else {
            return match (&self.tls_cert, &self.tls_key, &self.token_file) {
                (None, None, None) => Ok(builder),
                _ => Err(Failure::usage("--cert, --key and --token-file need TLS: pass --ca, too")),
            };
        };
        let mut tls = Tls::new(file("--ca", ca)?);
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => tls = tls.identity(file("--cert", cert)?, file("--key", key)?),
            (None, None) => {}
            _ => return Err(Failure::usage("--cert and --key belong together: pass both")),
        }
        let token = match &self.token_file {
            Some(path) => Some(String::from_utf8_lossy(&file("--token-file", path)?).into_owned()),
            None => std::env::var(TOKEN).ok(),
        };
        if let Some(token) = token {
            builder = builder.token(token);
        }
        Ok(builder.tls(tls))
    }
}

fn file(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::usage(format!("{flag}: cannot read {}: {error}", path.display())))
}

/// What a command works with.
pub(super) struct Session {
    pub(super) options: Options,
    pub(super) out: Output,
    client: OnceLock<Client>,
    transaction: Option<String>,
}

impl Session {
    pub(super) fn new(options: Options, transaction: Option<String>) -> Self {
        let out = Output { json: options.json, waits: transaction.is_some() };
        Self { options, out, client: OnceLock::new(), transaction }
    }

    /// The id of the transaction that the command is part of: the one that it names itself, or else the one of the option.
    pub(super) fn transaction(&self, named: Option<String>) -> Result<String, Failure> {
        let missing = "which transaction? Give its ID, or --transaction, or MESHSTORE_TRANSACTION";
        named.or_else(|| self.transaction.clone()).ok_or_else(|| Failure::usage(missing))
    }

    /// The client, for a command that reads. What it does is part of the transaction, if the command is part of one.
    pub(super) fn reader(&self) -> Result<Client, Failure> {
        if self.options.fence.is_some() {
            return Err(Failure::usage("--fence is for commands that write"));
        }
        self.inside()
    }

    /// The client, in the transaction if the command is part of one.
    fn inside(&self) -> Result<Client, Failure> {
        let client = self.outside()?;
        Ok(match &self.transaction {
            Some(transaction) => client.inside(transaction)?,
            None => client,
        })
    }

    /// The client, for what is part of no transaction.
    pub(super) fn outside(&self) -> Result<Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = self.options.client()?.connect_lazy()?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// The client, for a command that writes.
    pub(super) fn writer(&self) -> Result<Client, Failure> {
        if self.options.read.is_some() {
            return Err(Failure::usage("--read is for commands that read; a write has no read mode"));
        }
        let client = self.inside()?;
        Ok(match &self.options.fence {
            Some(fence) => client.with_fence(fence.clone()),
            None => client,
        })
    }

    /// Leaves nothing behind on the cluster.
    pub(super) async fn end(&self) {
        if let Some(client) = self.client.get() {
            // The session expires by itself if nobody is there to end it.
            let _ = client.clone().with_deadline(Duration::from_secs(1)).close_session().await;
        }
    }
}

/// `10s`, `500ms`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    connection::time(text).ok_or_else(|| "write a time like 500ms, 10s, 2m or 1h".to_owned())
}

/// `LOCK:TOKEN`.
fn fence(text: &str) -> Result<Fence, String> {
    let parsed = text.rsplit_once(':').and_then(|(lock, token)| Some((lock, token.parse().ok()?)));
    match parsed {
        Some((lock, token)) if !lock.is_empty() && token > 0 => Ok(Fence { lock: lock.into(), token }),
        _ => Err("write the name of a lock and a token, like deploy:42".into()),
    }
}

/// `linearizable`, `stale`, `stale:5s`, `at-least:42`.
pub(super) fn read_mode(text: &str) -> Result<ReadMode, String> {
    match text.split_once(':') {
        None if text == "linearizable" => Ok(ReadMode::Linearizable),
        None if text == "stale" => Ok(ReadMode::Stale(Duration::from_secs(5))),
        Some(("stale", age)) => duration(age).map(ReadMode::Stale),
        Some(("at-least", revision)) => revision
            .parse()
            .map(ReadMode::AtLeast)
            .map_err(|_| "the revision in at-least:REVISION must be a number".into()),
        _ => Err("it is linearizable, stale, stale:AGE (like stale:5s) or at-least:REVISION".into()),
    }
}

/// See [`Part::of`].
pub(super) async fn part<T>(
    all: bool,
    every: impl Future<Output = crate::Result<Vec<T>>>,
    page: impl Future<Output = crate::Result<crate::client::Page<T>>>,
) -> crate::Result<(Vec<T>, String, Option<u64>)> {
    if all {
        return Ok((every.await?, String::new(), None));
    }
    let crate::client::Page { items, next_cursor, revision } = page.await?;
    Ok((items, next_cursor, Some(revision)))
}

/// What is written goes with a lease.
#[derive(Args, Clone, Debug)]
pub(super) struct Attached {
    /// The lease with which it goes; without, it stays, also if it went with one before
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) lease: Option<u64>,
}

impl Attached {
    /// The client, for a command that writes so.
    pub(super) fn writer(&self, session: &Session) -> Result<Client, Failure> {
        Ok(session.writer()?.with_lease(self.lease.unwrap_or_default()))
    }
}

/// Which part of a list.
#[derive(Args, Clone, Debug)]
pub(super) struct Part {
    /// Most items, up to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where another page ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// All items, however many pages they are
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    pub(super) all: bool,
}

impl Part {
    /// That part of a list: `every` answers all items, `page` this page of them. Its items, where to go on, and of which
    /// revision a page is.
    pub(super) async fn of<T>(
        &self,
        every: impl Future<Output = crate::Result<Vec<T>>>,
        page: impl Future<Output = crate::Result<crate::client::Page<T>>>,
    ) -> crate::Result<(Vec<T>, String, Option<u64>)> {
        part(self.all, every, page).await
    }

    pub(super) fn request(&self) -> crate::client::PageRequest {
        crate::client::PageRequest { limit: self.limit, cursor: self.cursor.clone().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_read_modes_are_understood_or_refused() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for wrong in ["", "10", "s", "-1s", "1.5s", "10 s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(read_mode("linearizable"), Ok(ReadMode::Linearizable));
        assert_eq!(read_mode("stale"), Ok(ReadMode::Stale(Duration::from_secs(5))));
        assert_eq!(read_mode("stale:200ms"), Ok(ReadMode::Stale(Duration::from_millis(200))));
        assert_eq!(read_mode("at-least:42"), Ok(ReadMode::AtLeast(42)));
        assert_eq!(fence("a:b:7"), Ok(Fence { lock: "a:b".into(), token: 7 }));
        for wrong in ["", "a", "a:", ":7", "a:0", "a:-1", "a:x", "7"] {
            assert!(fence(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "fresh", "stale:", "stale:5", "at-least", "at-least:x", "linearizable:1"] {
            assert!(read_mode(wrong).is_err(), "{wrong}");
        }
    }
}
