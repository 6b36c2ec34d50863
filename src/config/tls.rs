//! `[tls]` and `[auth]`: by what nodes and callers are told apart.
//!
//! Only paths stand here; the files are read by `security`, which reads them again when they change. The file
//! describes all nodes, so `{node}` in a path stands for the id of the node that reads it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{Invalid, file::Source};

/// In a path: the node's id.
const NODE: &str = "{node}";

/// The files of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authority, in PEM: whose certificates they signed is believed.
    pub ca: PathBuf,
    /// This node's certificate, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The tokens that clients may have; without it they need certificates.
    pub tokens: Option<PathBuf>,
    /// Whether health and metrics are served over TLS, too.
    pub http: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    ca: Spanned<String>,
    cert: Spanned<String>,
    key: Spanned<String>,
    http: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthTable {
    tokens: Spanned<String>,
}

/// Checks both tables: the files, as they are written.
pub(super) fn read(
    source: &Source<'_>,
    tls: Option<&TlsTable>,
    auth: Option<&AuthTable>,
    nodes: usize,
) -> Result<Option<Tls>, Invalid> {
    let path = |name: &str, text: &Spanned<String>| {
        if text.get_ref().is_empty() {
            return Err(source.invalid(&text.span(), format!("{name} must not be empty")));
        }
        Ok(source.path.parent().unwrap_or(Path::new("")).join(text.get_ref()))
    };
    let tokens = auth.map(|auth| path("tokens", &auth.tokens)).transpose()?;
    let Some(tls) = tls else {
        return match auth {
            None => Ok(None),
            Some(auth) => Err(source.invalid(
                &auth.tokens.span(),
                "tokens need [tls]: sent in plain text, whoever sees the connection could use them",
            )),
        };
    };
    let (ca, cert, key) = (path("ca", &tls.ca)?, path("cert", &tls.cert)?, path("key", &tls.key)?);
    for (name, text) in [("cert", &tls.cert), ("key", &tls.key)] {
        if nodes > 1 && !text.get_ref().contains(NODE) && Path::new(text.get_ref()).is_relative() {
            // With an absolute path each machine may have its own file.
            let rule = format!("{name} is each node's own: write {NODE} into it, like tls/node-{NODE}.crt");
            return Err(source.invalid(&text.span(), rule));
        }
    }
    Ok(Some(Tls { ca, cert, key, tokens, http: tls.http.unwrap_or(false) }))
}

impl Tls {
    /// The files of this node.
    pub(super) fn of_node(self, id: u64) -> Self {
        let named = |path: PathBuf| match path.to_str() {
            Some(text) if text.contains(NODE) => text.replace(NODE, &id.to_string()).into(),
            _ => path,
        };
        Self {
            ca: named(self.ca),
            cert: named(self.cert),
            key: named(self.key),
            tokens: self.tokens.map(named),
            http: self.http,
        }
    }
}
