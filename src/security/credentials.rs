//! Certificates and keys, checked, and what TLS makes of them.
//!
//! TLS 1.3 only, with the suites of `ring`. No session is ever resumed: a resumed one would skip the check of the
//! certificate, and connections live long, so nothing is gained. Time comes from the node's clock.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, OtherError, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::{
    environment::{Clock, net::Certified},
    model::Principal,
};

/// Before a principal, in a certificate's alternative names.
pub(super) const SCHEME: &str = "meshstore://";

/// What the files hold, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    pub(super) ca: Vec<u8>,
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// What a node shows to others, and whom it believes.
pub(super) struct Credentials {
    /// For clients, who may have a certificate.
    pub(super) clients: Arc<ServerConfig>,
    /// For nodes, which must have one.
    pub(super) peers: Arc<ServerConfig>,
    /// For whoever watches the node: no certificate is asked for.
    pub(super) http: Arc<ServerConfig>,
    /// For calling other nodes.
    pub(super) dial: Arc<ClientConfig>,
    /// Until when this node's certificate holds, in milliseconds since 1970.
    pub(super) until_ms: u64,
}

impl Credentials {
    /// Checks that these belong together, and are this node's. Errors: what is wrong.
    pub(super) fn new(pem: &Pem, node: u64, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let roots = roots(&pem.ca)?;
        let chain: Vec<CertificateDer<'static>> = certificates(&pem.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| format!("the key is no PEM: {error}"))?;
        let time = Arc::new(Time(Arc::clone(clock)));
        let provider = Arc::new(ring::default_provider());

        let verifier = |optional: bool| {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
            let builder = if optional { builder.allow_unauthenticated() } else { builder };
            builder.build().map_err(|error| format!("the ca cannot be used: {error}"))
        };
        let must = verifier(false)?;
        let until_ms = check_own(&chain, must.as_ref(), node, clock.wall_ms())?;
        let server = |verifier: Option<Arc<dyn ClientCertVerifier>>, alpn: &[u8]| {
            server(verifier, &chain, &key, &provider, &time, alpn).map_err(|error| unusable(&error))
        };
        let clients = server(Some(verifier(true)?), b"h2")?;
        let peers = server(Some(must), b"h2")?;
        let http = server(None, b"http/1.1")?;
        let mut dial = ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        dial.alpn_protocols = vec![b"h2".to_vec()];
        dial.resumption = Resumption::disabled();
        Ok(Self { clients, peers, http, dial: Arc::new(dial), until_ms })
    }
}

fn unusable(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".into(),
        error => format!("certificate and key cannot be used: {error}"),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() { Err("there is no certificate in cert".into()) } else { Ok(chain) }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("the ca is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate of ca cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in ca".into()) } else { Ok(Arc::new(roots)) }
}

/// Refuses what every other node would refuse. Until when the certificate holds, in milliseconds since 1970.
fn check_own(
    chain: &[CertificateDer<'static>],
    verifier: &dyn ClientCertVerifier,
    node: u64,
    now_ms: u64,
) -> Result<u64, String> {
    let (own, between) = chain.split_first().ok_or("there is no certificate in cert")?;
    let certified = certified(own);
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
    verifier.verify_client_cert(own, between, now).map_err(|error| match error {
        rustls::Error::InvalidCertificate(error) => format!("the certificate {}", fault_of(&error)),
        error => format!("the certificate cannot be used: {error}"),
    })?;
    let expected = Principal::Node(node).to_string();
    if certified.name != expected {
        let found = if certified.name.is_empty() { "nobody" } else { &certified.name };
        return Err(format!(
            "the certificate is for {found}, and this is {expected}: it needs {SCHEME}{expected} among its \
             alternative names"
        ));
    }
    Ok(certified.until_ms)
}

/// What is wrong with a certificate, in a person's words: to be read behind "the certificate".
pub(super) fn fault_of(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".into(),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is not signed by a certificate of ca".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is not for the host that was called".into()
        }
        CertificateError::Other(OtherError(error)) => format!("cannot be used: {error}"),
        error => format!("cannot be used: {error}"),
    }
}

fn server(
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    provider: &Arc<CryptoProvider>,
    time: &Arc<Time>,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_details(Arc::clone(provider), Arc::clone(time) as _)
        .with_protocol_versions(&[&TLS13])?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain.to_vec(), key.clone_key())?;
    server.alpn_protocols = vec![alpn.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// What a certificate says that was checked. A name that is none of ours is left empty.
pub(super) fn certified(certificate: &CertificateDer<'_>) -> Certified {
    let nobody = Certified { name: String::new(), until_ms: 0 };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return nobody };
    let until_ms = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1_000);
    Certified { name: name_of(&parsed).unwrap_or_default(), until_ms }
}

/// The principal among the alternative names; `None` if there is not exactly one.
fn name_of(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut ours = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
        _ => None,
    });
    let name = ours.next()?.to_owned();
    ours.next().is_none().then_some(name)
}

/// The node's clock, as TLS asks for it.
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall_ms())))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}
