//! Who calls, and what they may do.
//!
//! * **Connections**: [`Security::net`] puts TLS around a network (`net.rs`). Nodes show each other certificates of one
//!   authority, which name them (`credentials.rs`); clients may show one, or send a token (`tokens.rs`).
//! * **Callers**: [`Security::authenticate`] makes a [`Principal`] of what a call brought along.
//! * **Decisions**: `decide.rs` is one pure function, `matrix.rs` says what each RPC does.
//! * **Making them**: `issue.rs` is the authority behind `meshstore security`.
//!
//! All files are read again when they change, and on SIGHUP. What is broken is not taken over: the old stays in use, and
//! the log says so. A token counts until the file that lacks it is read. A certificate is checked when the connection
//! opens, and its end with each call; a connection that is open stays open when the authority changes.
//!
//! Invariants: a node with TLS serves nobody whom it does not know, and reads nothing in plain text. No secret is ever
//! logged, or part of an error.

mod credentials;
pub mod decide;
pub mod issue;
pub mod matrix;
mod net;
pub mod tokens;

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, header::AUTHORIZATION};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use self::{
    credentials::{Credentials, Pem, SCHEME},
    net::TlsNet,
    tokens::Tokens,
};
pub use self::{
    decide::{Access, Action, Denied, Policy, Surface, decide},
    net::Callers,
};
use crate::{
    config::Tls,
    environment::{Clock, Net, net::Proof},
    error::{Error, Fault, Result},
    model::Principal,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A certificate that ends within this time is warned of, once a day.
const WARN_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The longest file of certificates or a key, in bytes.
const PEM_BYTES: u64 = 1 << 20;

/// What a node with TLS knows of itself and of callers.
pub struct Security {
    files: Tls,
    node: u64,
    clock: Arc<dyn Clock>,
    credentials: ArcSwap<Credentials>,
    tokens: ArcSwap<Tokens>,
    /// What was read last, whether or not it could be used: what is wrong is said once.
    seen: Mutex<Seen>,
}

#[derive(PartialEq, Eq)]
struct Seen {
    pem: std::result::Result<Pem, String>,
    tokens: std::result::Result<String, String>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// This was taken over.
    Taken(&'static str),
    /// This is wrong, and the old stays in use.
    Kept(String),
}

impl Security {
    /// Reads the files of a node. Errors: what is wrong with which of them.
    pub fn open(files: &Tls, node: u64, clock: &Arc<dyn Clock>) -> std::result::Result<Arc<Self>, Fault> {
        let seen = Seen::read(files);
        let wrong = |rule: &str| Fault::new(format!("TLS cannot be used: {rule}"));
        let credentials = credentials(&seen, files, node, clock).map_err(|rule| wrong(&rule))?;
        let tokens = tokens(&seen, files).map_err(|rule| wrong(&rule))?;
        Ok(Arc::new(Self {
            files: files.clone(),
            node,
            clock: Arc::clone(clock),
            credentials: ArcSwap::from_pointee(credentials),
            tokens: ArcSwap::from_pointee(tokens),
            seen: Mutex::new(seen),
        }))
    }

    /// TLS around a network, for listening to these callers, and for dialling nodes.
    pub fn net(self: &Arc<Self>, inner: &Arc<dyn Net>, callers: Callers) -> Arc<dyn Net> {
        Arc::new(TlsNet { security: Arc::clone(self), inner: Arc::clone(inner), callers })
    }

    fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Who makes a call that came over a connection with this proof, with these headers. A token counts more than a
    /// certificate, which may be that of a gateway.
    ///
    /// Errors: `Unauthenticated`.
    pub fn authenticate(&self, proof: &Proof, headers: &HeaderMap) -> Result<Principal> {
        if *proof == Proof::Plain {
            return Err(Error::Unauthenticated("this node speaks TLS only".into()));
        }
        let now_ms = self.clock.wall_ms();
        let mut authorizations = headers.get_all(AUTHORIZATION).iter();
        if let Some(authorization) = authorizations.next() {
            let token = authorization.to_str().ok().and_then(|text| text.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            return match token {
                Some((_, token)) if authorizations.next().is_none() => self.by_token(token.trim(), now_ms),
                _ => {
                    Err(Error::Unauthenticated("there must be one authorization, and it must be: Bearer TOKEN".into()))
                }
            };
        }
        match proof {
            Proof::Certified(certified) if certified.name.is_empty() => Err(Error::Unauthenticated(format!(
                "the client's certificate names nobody: it needs one name like {SCHEME}service/NAME among its \
                 alternative names"
            ))),
            Proof::Certified(certified) if certified.until_ms <= now_ms => {
                let until = tokens::date(certified.until_ms);
                Err(Error::Unauthenticated(format!("the client's certificate has expired, on {until}")))
            }
            Proof::Certified(certified) => certified
                .name
                .parse()
                .map_err(|rule| Error::Unauthenticated(format!("the name in the client's certificate: {rule}"))),
            Proof::Plain | Proof::Encrypted => {
                Err(Error::Unauthenticated("the call brought neither a token nor a certificate along".into()))
            }
        }
    }

    fn by_token(&self, text: &str, now_ms: u64) -> Result<Principal> {
        let tokens = self.tokens.load();
        match tokens.find(text) {
            Some(token) if token.has_expired(now_ms) => {
                let expired = token.expires_ms.map(tokens::date).unwrap_or_default();
                Err(Error::Unauthenticated(format!("the token {} has expired, on {expired}", token.id)))
            }
            Some(token) => Ok(token.principal.clone()),
            None if self.files.tokens.is_none() => {
                Err(Error::Unauthenticated("this node takes no tokens, only certificates".into()))
            }
            None => Err(Error::Unauthenticated("the token is unknown here, or was revoked".into())),
        }
    }

    /// Reads the files again, and takes over what has changed and can be used.
    pub fn reload(&self) -> Vec<Reloaded> {
        let (new, mut done) = (Seen::read(&self.files), Vec::new());
        // No code panics while it holds this lock, and a half changed one would only be read again.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if new.pem != seen.pem {
            done.push(match credentials(&new, &self.files, self.node, &self.clock) {
                Ok(credentials) => {
                    self.credentials.store(Arc::new(credentials));
                    Reloaded::Taken("certificates")
                }
                Err(rule) => Reloaded::Kept(rule),
            });
        }
        if new.tokens != seen.tokens {
            done.push(match tokens(&new, &self.files) {
                Ok(tokens) => {
                    self.tokens.store(Arc::new(tokens));
                    Reloaded::Taken("tokens")
                }
                Err(rule) => Reloaded::Kept(rule),
            });
        }
        *seen = new;
        done
    }

    /// Reads the files again when they have changed, and on SIGHUP. Never ends.
    pub async fn watch(self: Arc<Self>) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        let (mut warned, day) = (None::<Instant>, Duration::from_millis(DAY_MS));
        loop {
            if warned.is_none_or(|warned| warned.elapsed() >= day) {
                self.warn_of_the_end();
                warned = Some(Instant::now());
            }
            let told = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let told = tokio::time::timeout(LOOK, told).await.is_ok();
            let security = Arc::clone(&self);
            // A file may lie on a network.
            let Ok(done) = tokio::task::spawn_blocking(move || security.reload()).await else { continue };
            if told && done.is_empty() {
                tracing::info!("SIGHUP: certificates and tokens are as before");
            }
            for one in done {
                match one {
                    Reloaded::Taken(what) => {
                        tracing::info!("{what} were read again: they count from now on");
                        warned = None;
                    }
                    Reloaded::Kept(rule) => tracing::error!("what was read before stays in use: {rule}"),
                }
            }
        }
    }

    fn warn_of_the_end(&self) {
        let until_ms = self.credentials().until_ms;
        if until_ms.saturating_sub(self.clock.wall_ms()) < WARN_MS {
            let cert = self.files.cert.display();
            tracing::warn!("{cert} ends on {}: nobody will connect then; renew it", tokens::date(until_ms));
        }
    }
}

impl Seen {
    fn read(files: &Tls) -> Self {
        let pem = || {
            let read = |name, path| read(name, path, PEM_BYTES);
            Ok(Pem { ca: read("ca", &files.ca)?, cert: read("cert", &files.cert)?, key: read("key", &files.key)? })
        };
        let tokens = match &files.tokens {
            None => Ok(String::new()),
            Some(path) => read("tokens", path, tokens::FILE_BYTES).and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| format!("the tokens {} are no UTF-8", path.display()))
            }),
        };
        Self { pem: pem(), tokens }
    }
}

fn read(name: &str, path: &Path, most: u64) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let length = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match length {
        Ok(length) if length as u64 > most => Err(format!("the {name} {} is longer than {most} bytes", path.display())),
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("cannot read the {name} {}: {error}", path.display())),
    }
}

fn credentials(
    seen: &Seen,
    files: &Tls,
    node: u64,
    clock: &Arc<dyn Clock>,
) -> std::result::Result<Credentials, String> {
    let pem = seen.pem.as_ref().map_err(Clone::clone)?;
    Credentials::new(pem, node, clock).map_err(|rule| {
        let Tls { ca, cert, key, .. } = files;
        format!("{rule} (ca {}, cert {}, key {})", ca.display(), cert.display(), key.display())
    })
}

fn tokens(seen: &Seen, files: &Tls) -> std::result::Result<Tokens, String> {
    let text = seen.tokens.as_ref().map_err(Clone::clone)?;
    Tokens::parse(text, files.tokens.as_deref().unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests;
