//! TLS, as a network around another one: whoever listens or dials over it needs to know nothing of it.
//!
//! What a connection has proven of its other end goes along with it ([`Proof`]), and is judged where calls are: at the
//! peers' gate, and before the services. Handshakes run beside each other, each with a limit, so that a slow caller
//! keeps nobody waiting.
//!
//! There is no way from plain text to anything. But a gRPC client that speaks it is told: the answer is a frame of HTTP/2
//! that ends the connection for INADEQUATE_SECURITY, and says that no call was begun.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    Security,
    credentials::{certified, fault_of},
};
use crate::{
    environment::net::{Io, Listener, Net, Proof},
    model::Principal,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Failed handshakes are told of at most this often; in between at the level debug.
const TELL: Duration = Duration::from_secs(10);
/// The first byte of a handshake of TLS.
const HANDSHAKE_RECORD: u8 = 0x16;
/// SETTINGS without settings; GOAWAY after stream 0 for INADEQUATE_SECURITY (12), with a text of 33 bytes.
const GO_AWAY: &[u8] =
    b"\0\0\0\x04\0\0\0\0\0\0\0\x29\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0Cthis address speaks TLS 1.3 only\n";
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 30\r\nconnection: close\r\n\r\nthis address speaks TLS, only\n";

/// Who calls at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Clients, who may have a certificate.
    Clients,
    /// Nodes, which must have one.
    Peers,
    /// Who watches the node, over HTTP/1.
    Watchers,
}

/// A network in which everything is encrypted.
pub(super) struct TlsNet {
    pub(super) security: Arc<Security>,
    pub(super) inner: Arc<dyn Net>,
    pub(super) callers: Callers,
}

impl Net for TlsNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = self.inner.listen(address).await?;
            let (security, callers) = (Arc::clone(&self.security), self.callers);
            Ok(Box::new(TlsListener { inner, security, callers, handshakes: JoinSet::new(), told: None }) as _)
        })
    }

    /// Dials a node: its certificate must be for the host, and for a node.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{host}: {error}")))?;
            let io = self.inner.connect(address).await?;
            let (local, remote) = (io.local_address(), io.remote_address());
            let connector = TlsConnector::from(Arc::clone(&self.security.credentials().dial));
            let stream = connector.connect(name, io).await.map_err(|error| explained(&error, address))?;
            let proof = proof(stream.get_ref().1.peer_certificates());
            match &proof {
                Proof::Certified(of) if matches!(of.name.parse(), Ok(Principal::Node(_))) => {}
                _ => return Err(invalid(format!("the certificate that {address} shows is not a node's"))),
            }
            Ok(Io::new(stream, local, remote).with_proof(proof))
        })
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn explained(error: &io::Error, address: &str) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(error)) => {
            invalid(format!("the certificate that {address} shows {}", fault_of(error)))
        }
        Some(rustls::Error::InvalidMessage(_)) => invalid(format!("{address} does not speak TLS")),
        _ => io::Error::new(error.kind(), format!("no TLS with {address}: {error}")),
    }
}

fn proof(chain: Option<&[CertificateDer<'_>]>) -> Proof {
    match chain.and_then(<[_]>::first) {
        Some(own) => Proof::Certified(Arc::new(certified(own))),
        None => Proof::Encrypted,
    }
}

struct TlsListener {
    inner: Box<dyn Listener>,
    security: Arc<Security>,
    callers: Callers,
    /// Those that are under way; they end with the listener. Their number is bounded by the connections that the inner
    /// listener lets in.
    handshakes: JoinSet<io::Result<Io>>,
    /// When a failed one was last told of.
    told: Option<Instant>,
}

impl Listener for TlsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    Some(done) = self.handshakes.join_next() => match done {
                        Ok(Ok(io)) => return Ok(io),
                        Ok(Err(error)) => self.tell(&error),
                        Err(error) => self.tell(&io::Error::other(error)),
                    },
                    arrived = self.inner.accept() => {
                        let (io, credentials) = (arrived?, self.security.credentials());
                        let config = match self.callers {
                            Callers::Clients => &credentials.clients,
                            Callers::Peers => &credentials.peers,
                            Callers::Watchers => &credentials.http,
                        };
                        self.handshakes.spawn(within_limit(io, Arc::clone(config), self.callers));
                    }
                }
            }
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.local_address()
    }
}

impl TlsListener {
    fn tell(&mut self, error: &io::Error) {
        let callers = self.callers;
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            tracing::debug!(?callers, %error, "a TLS handshake failed");
        } else {
            self.told = Some(Instant::now());
            tracing::warn!(?callers, %error, "a TLS handshake failed");
        }
    }
}

async fn within_limit(io: Io, config: Arc<ServerConfig>, callers: Callers) -> io::Result<Io> {
    let remote = io.remote_address();
    let done = timeout(HANDSHAKE, handshake(io, config, callers)).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")));
    done.map_err(|error| {
        let from = remote.map_or_else(|| "somebody".into(), |remote| remote.to_string());
        io::Error::new(error.kind(), format!("{from}: {error}"))
    })
}

async fn handshake(mut io: Io, config: Arc<ServerConfig>, callers: Callers) -> io::Result<Io> {
    let (local, remote) = (io.local_address(), io.remote_address());
    let first = io.read_u8().await?;
    if first != HANDSHAKE_RECORD {
        turn_away(io, callers).await;
        return Err(invalid("it speaks plain text, or something unknown".into()));
    }
    let stream = TlsAcceptor::from(config).accept(Rejoined { first: Some(first), io }).await?;
    let proof = proof(stream.get_ref().1.peer_certificates());
    Ok(Io::new(stream, local, remote).with_proof(proof))
}

/// Says what is spoken here to one who speaks something else.
async fn turn_away(mut io: Io, callers: Callers) {
    let answer = if callers == Callers::Watchers { BAD_REQUEST } else { GO_AWAY };
    if io.write_all(answer).await.is_ok() && io.shutdown().await.is_ok() {
        // An end that closes while bytes still arrive takes its answer back; a caller that has read it goes.
        let mut rest = io.take(1 << 20);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

/// A connection of which the first byte was read already.
struct Rejoined {
    first: Option<u8>,
    io: Io,
}

impl AsyncRead for Rejoined {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Rejoined {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
