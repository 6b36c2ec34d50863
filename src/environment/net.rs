//! Connections, behind a trait with two implementations: TCP, and the simulation's, which delays,
//! partitions and cuts.
//!
//! A [`Net`] knows addresses and byte streams, nothing above them. [`channel`] and [`incoming`] fit it
//! to tonic: everything that a node dials or accepts goes through these two, so the same gRPC code runs
//! over real sockets and in the simulation.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, future::BoxFuture};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::{Channel, Endpoint, server::Connected};

use super::unread::Unread;

/// A network.
pub trait Net: Send + Sync + 'static {
    /// Accepts connections on `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Opens a connection to `host:port`. May take as long as the network does: callers bring the timeout.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>>;
}

/// Where connections arrive.
pub trait Listener: Send {
    /// The next connection. Safe to drop while it waits.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>>;
    /// The address that it is bound to.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// A stream of bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What a connection has proven of its other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it is in plain text.
    #[default]
    Plain,
    /// TLS, by an end without a certificate.
    Encrypted,
    /// TLS, by the owner of a certificate that was checked.
    Certified(Arc<Certified>),
}

/// What a checked certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Whose it is.
    pub name: String,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What is known of a connection. An extension of each request that arrives over it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// What it has proven of its other end.
    pub proof: Proof,
    /// What its other end has not taken.
    pub unread: Arc<Unread>,
    /// How many watches it has.
    pub watches: Arc<AtomicUsize>,
}

/// An open connection.
pub struct Io {
    stream: Box<dyn ByteStream>,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    connection: Connection,
    /// Its place among those that its listener may have open.
    _place: Option<OwnedSemaphorePermit>,
}

impl Io {
    /// A connection over `stream` between these two ends, as far as they are known.
    pub fn new(stream: impl ByteStream + 'static, local: Option<SocketAddr>, remote: Option<SocketAddr>) -> Self {
        Self { stream: Box::new(stream), local, remote, connection: Connection::default(), _place: None }
    }

    /// The connection, with what it has proven.
    #[must_use]
    pub fn with_proof(self, proof: Proof) -> Self {
        Self { connection: Connection { proof, ..self.connection }, ..self }
    }

    /// This end.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    /// What it has proven of the other end.
    pub fn proof(&self) -> &Proof {
        &self.connection.proof
    }

    /// The other end.
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.remote
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("local", &self.local).field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Connected for Io {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Asked at least as often as the other end is asked for a sign of life.
        if self.connection.unread.is_stuck() {
            tracing::warn!(remote = ?self.remote, "a connection is closed: it does not read its answers");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    // Without these two a value would be copied once more on its way into the socket.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// TCP, without Nagle's delay.
pub struct RealNet;

impl Net for RealNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            let (address, bound) = (address.to_owned(), connections());
            let places = Arc::new(Semaphore::new(bound));
            Ok(Box::new(RealListener { listener, address, bound, places, full: false }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move { tcp(tokio::net::TcpStream::connect(address).await?) })
    }
}

/// Raises the number of files and connections that this process may have open to what it may ask for.
pub fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(?current, ?maximum, %error, "cannot raise the number of open files");
    }
}

/// How many connections a listener may have open: a quarter of what the process may open. A node has three listeners,
/// so however many connect a quarter is left for its files, without which it could not go on.
fn connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    (files.unwrap_or(usize::MAX) / 4).clamp(16, 1 << 20)
}

struct RealListener {
    listener: tokio::net::TcpListener,
    address: String,
    bound: usize,
    places: Arc<Semaphore>,
    /// Whether the last connection was turned away; said only when it changes.
    full: bool,
}

impl Listener for RealListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>> {
        Box::pin(async move {
            loop {
                let (stream, _) = self.listener.accept().await?;
                let Ok(place) = self.places.clone().try_acquire_owned() else {
                    if !std::mem::replace(&mut self.full, true) {
                        let (address, open) = (&self.address, self.bound);
                        tracing::warn!(%address, open, "too many connections: new ones are closed at once");
                    }
                    continue;
                };
                self.full = false;
                return Ok(Io { _place: Some(place), ..tcp(stream)? });
            }
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn tcp(stream: tokio::net::TcpStream) -> io::Result<Io> {
    stream.set_nodelay(true)?;
    let (local, remote) = (stream.local_addr().ok(), stream.peer_addr().ok());
    Ok(Io::new(stream, local, remote))
}

/// How long to wait after an accept failed (out of file descriptors, say) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener's connections, for `tonic::transport::Server::serve_with_incoming`. Never ends, and never
/// yields an error, since tonic stops serving at the first that it does not know.
pub fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<Io>> + Send {
    futures_util::stream::unfold(listener, |mut listener| async move {
        loop {
            match listener.accept().await {
                Ok(io) => return Some((Ok(io), listener)),
                Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "a connection failed early"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    // A real timer: what is missing (descriptors, memory) comes back without telling us.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

/// How a [`channel`] behaves.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// A connection on which nothing arrives for this long is asked for a sign of life...
    pub keep_alive_interval: Duration,
    /// ...and closed if none comes for this long. All its calls fail then.
    pub keep_alive_timeout: Duration,
    /// Bytes that the other side may send on one call before we have taken them.
    pub stream_window: u32,
    /// The same, for all calls of the connection.
    pub connection_window: u32,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(4),
            stream_window: 1 << 20,
            connection_window: 4 << 20,
        }
    }
}

/// A gRPC channel to `host:port` that connects when it is first used, and again when it has to. Must be
/// called inside a tokio runtime, on which its connection then lives.
///
/// A call that fails because no connection could be opened has a `tonic::ConnectError` among the sources of
/// its error: it was certainly not sent.
///
/// Errors: `InvalidInput` if `address` is not `host:port`.
pub fn channel(net: &Arc<dyn Net>, address: &str, options: &ChannelOptions) -> io::Result<Channel> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, format!("address {address:?}: {what}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| invalid(error.to_string()))?;
    if endpoint.uri().port_u16().is_none() || endpoint.uri().path() != "/" {
        return Err(invalid("must be host:port".into()));
    }
    let endpoint = endpoint
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window);
    let (net, address, timeout) = (net.clone(), Arc::<str>::from(address), options.connect_timeout);
    // The timeout is here and not the endpoint's own, since that one's error could not be told from that of
    // a call that was sent.
    let connector = tower::service_fn(move |_| {
        let (net, address) = (net.clone(), address.clone());
        async move {
            let connection = tokio::time::timeout(timeout, net.connect(&address)).await;
            let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}"));
            connection.map_err(timed_out)?.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_ends_are_known() {
        let mut listener = RealNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().unwrap().to_string();
        let (client, server) = tokio::join!(RealNet.connect(&address), listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.remote_address().unwrap().to_string(), address);
        assert_eq!(server.local_address().unwrap().to_string(), address);
        assert_eq!(server.connect_info().proof, Proof::Plain);
        client.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        drop(client);
        assert_eq!(server.read(&mut bytes).await.unwrap(), 0);
    }

    struct Failing(Vec<io::ErrorKind>);

    impl Listener for Failing {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>> {
            let answer = match self.0.pop() {
                Some(kind) => Err(io::Error::from(kind)),
                None => Ok(Io::new(tokio::io::duplex(1).0, None, None)),
            };
            Box::pin(async { answer })
        }

        fn local_address(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_accept_does_not_end_the_server() {
        let listener = Failing(vec![io::ErrorKind::OutOfMemory, io::ErrorKind::ConnectionReset]);
        let mut connections = std::pin::pin!(incoming(Box::new(listener)));
        assert!(connections.next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_channel_needs_host_and_port() {
        let net: Arc<dyn Net> = Arc::new(RealNet);
        for wrong in ["", "host", "host:", "host:1/path", "a b:1", "host:99999"] {
            assert!(channel(&net, wrong, &ChannelOptions::default()).is_err(), "{wrong:?}");
        }
        for right in ["host:1", "10.0.0.1:7001", "[::1]:7001"] {
            assert!(channel(&net, right, &ChannelOptions::default()).is_ok(), "{right:?}");
        }
    }
}
