//! How a client knows the nodes, and how they know it.
//!
//! A node is believed if its certificate is signed by the cluster's authority and is for the host that was called. The
//! client is known by a certificate of its own, or by a token, which goes with each call, and over TLS only.

use tonic::{
    metadata::AsciiMetadataValue,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use crate::{Error, Result};

/// What a client needs for TLS: [`Builder::tls`](super::Builder::tls).
#[derive(Clone)]
pub struct Tls {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Believes nodes whose certificates are signed by one of these, in PEM (`ca.crt`).
    pub fn new(ca: impl Into<Vec<u8>>) -> Self {
        Self { ca: ca.into(), identity: None }
    }

    /// Shows this certificate, with its private key, both in PEM.
    #[must_use]
    pub fn identity(self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { identity: Some((cert.into(), key.into())), ..self }
    }

    /// Errors: `InvalidArgument`.
    pub(super) fn check(&self) -> Result<()> {
        self.endpoint("localhost:1").map(drop)
    }

    /// The endpoint of `host:port`. Errors: `InvalidArgument` if a certificate or the key is none.
    pub(super) fn endpoint(&self, address: &str) -> Result<Endpoint> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let is_chain = |pem: &[u8]| {
            let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            all.is_ok_and(|all| !all.is_empty())
        };
        if !is_chain(&self.ca) {
            return Err(Error::invalid("ca", "", "must be a certificate in PEM"));
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca)).domain_name(host);
        if let Some((cert, key)) = &self.identity {
            if !is_chain(cert) {
                return Err(Error::invalid("cert", "", "must be a certificate in PEM"));
            }
            if PrivateKeyDer::from_pem_slice(key).is_err() {
                return Err(Error::invalid("key", "", "must be a private key in PEM"));
            }
            config = config.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"));
        let endpoint = endpoint.map_err(|error| Error::invalid("endpoint", address, error.to_string()))?;
        endpoint.tls_config(config).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::invalid("tls", "", format!("certificate and key must belong together: {cause}"))
        })
    }
}

/// What goes with each call. Errors: `InvalidArgument`; the token is in no message.
pub(super) fn bearer(token: &str) -> Result<AsciiMetadataValue> {
    let invalid = || Error::invalid("token", "", "must be as it was given: printable characters without spaces");
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid());
    }
    let mut value: AsciiMetadataValue = format!("Bearer {token}").parse().map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_none_is_refused_and_not_shown() {
        for wrong in ["", " ", "a b", "a\nb", "ä"] {
            let error = bearer(wrong).unwrap_err();
            assert!(
                matches!(&error, Error::InvalidArgument { field, value, .. } if field == "token" && value.is_empty())
            );
        }
        let value = bearer(" mst_1 \n").unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer mst_1");
        assert!(!format!("{value:?}").contains("mst_1"));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(Tls::new("x").check(), Err(Error::InvalidArgument { field, .. }) if field == "ca"));
    }
}
