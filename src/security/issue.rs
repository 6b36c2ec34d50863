//! The authority: it makes the certificates by which nodes and clients are known.
//!
//! Keys are ECDSA on P-256. A certificate names one principal, in a URI (`meshstore://node/1`). Those of nodes are for
//! their hosts, too, and may be used at both ends of a connection; those of clients only at theirs, so that no client
//! can pass for a node. The authority signs no other authorities.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use super::credentials::{SCHEME, certified};
use crate::model::Principal;

/// How long an authority lasts: ten years.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// A certificate holds from so long before it is made, for clocks that are behind.
const EARLIER: Duration = Duration::from_secs(60 * 60);

/// A certificate and its private key, in PEM.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The private key: a secret.
    pub key: String,
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    until_ms: u64,
}

fn failed(error: &rcgen::Error) -> String {
    format!("the certificate cannot be made: {error}")
}

impl Authority {
    /// A new authority, from now on; `name` is for people. Its certificate and key, which is the key to everything.
    pub fn found(name: &str, now_ms: u64) -> Result<(Self, Issued), String> {
        let mut params = params(&format!("meshstore authority of {name}"), now_ms, AUTHORITY, u64::MAX)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let cert = params.self_signed(&key).map_err(|error| failed(&error))?;
        let issued = Issued { cert: cert.pem(), key: key.serialize_pem() };
        let until_ms = certified(cert.der()).until_ms;
        Ok((Self { issuer: Issuer::new(params, key), until_ms }, issued))
    }

    /// The authority of these files. Errors: they are none.
    pub fn open(cert: &str, key: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(key).map_err(|error| format!("the authority's key cannot be used: {error}"))?;
        let der = CertificateDer::from_pem_slice(cert.as_bytes())
            .map_err(|error| format!("the authority's certificate is no PEM: {error}"))?;
        let own = key.subject_public_key_info();
        let is_ours = x509_parser::parse_x509_certificate(&der)
            .is_ok_and(|(_, parsed)| parsed.is_ca() && parsed.public_key().raw == own.as_slice());
        if !is_ours {
            return Err("the authority's certificate is none, or its key is another's".into());
        }
        let until_ms = certified(&der).until_ms;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| failed(&error))?;
        Ok(Self { issuer, until_ms })
    }

    /// A certificate for a node that is reached at these hosts: names, or IP addresses.
    pub fn node(&self, id: u64, hosts: &[String], now_ms: u64, lasts: Duration) -> Result<Issued, String> {
        if hosts.is_empty() {
            return Err(format!("node {id} needs a host by which it is reached"));
        }
        let mut params = self.params(&Principal::Node(id), now_ms, lasts)?;
        for host in hosts {
            let name = match host.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(
                    host.as_str().try_into().map_err(|_| format!("\"{}\" is no host", host.escape_debug()))?,
                ),
            };
            params.subject_alt_names.push(name);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A certificate for a service or a person.
    pub fn client(&self, principal: &Principal, now_ms: u64, lasts: Duration) -> Result<Issued, String> {
        if !matches!(principal, Principal::Service(_) | Principal::Person(_)) {
            return Err(format!("{principal} is no client"));
        }
        let mut params = self.params(principal, now_ms, lasts)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn params(&self, principal: &Principal, now_ms: u64, lasts: Duration) -> Result<CertificateParams, String> {
        if self.until_ms <= now_ms {
            return Err("the authority has expired: found a new one".into());
        }
        let mut params = params(&principal.to_string(), now_ms, lasts, self.until_ms)?;
        let name = format!("{SCHEME}{principal}");
        let name = name.try_into().map_err(|error: rcgen::Error| failed(&error))?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Issued, String> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?;
        Ok(Issued { cert: cert.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, now_ms: u64, lasts: Duration, most_ms: u64) -> Result<CertificateParams, String> {
    let moment = |ms: u64| {
        let seconds = i64::try_from(ms / 1_000).ok();
        seconds
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or_else(|| "the time of this machine, or how long the certificate is to hold, makes no date".to_owned())
    };
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut params = CertificateParams::default();
    params.not_before = moment(now_ms.saturating_sub(ms(EARLIER)))?;
    params.not_after = moment(now_ms.saturating_add(ms(lasts)).min(most_ms))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;
    const DAY: Duration = Duration::from_secs(86_400);

    fn certified_of(issued: &Issued) -> crate::environment::net::Certified {
        certified(&CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap())
    }

    #[test]
    fn a_certificate_names_its_principal_and_ends_with_its_authority() {
        let (_, files) = Authority::found("test", NOW).unwrap();
        let authority = Authority::open(&files.cert, &files.key).unwrap();
        let node = authority.node(7, &["node-7.example".into(), "10.0.0.7".into(), "::1".into()], NOW, DAY).unwrap();
        let certified = certified_of(&node);
        assert_eq!((certified.name.as_str(), certified.until_ms), ("node/7", NOW + 86_400_000));
        let ada = authority.client(&Principal::Person("ada".into()), NOW, 100 * 365 * DAY).unwrap();
        assert_eq!(certified_of(&ada).name, "person/ada");
        assert_eq!(certified_of(&ada).until_ms, certified_of(&files).until_ms, "not longer than the authority");
        assert_eq!(certified_of(&files).name, "");
    }

    #[test]
    fn what_makes_no_certificate_is_refused() {
        let (authority, files) = Authority::found("test", NOW).unwrap();
        assert!(authority.node(1, &[], NOW, DAY).is_err());
        assert!(authority.node(1, &["ä".into()], NOW, DAY).is_err());
        assert!(authority.client(&Principal::Node(1), NOW, DAY).is_err());
        assert!(authority.client(&Principal::Anonymous, NOW, DAY).is_err());
        assert!(authority.client(&Principal::Person("ada".into()), NOW + 11 * 365 * 86_400_000, DAY).is_err());
        let ada = authority.client(&Principal::Person("ada".into()), NOW, DAY).unwrap();
        assert!(Authority::open(&files.cert, &ada.key).is_err(), "a key of another");
        assert!(Authority::open(&ada.cert, &ada.key).is_err(), "no authority");
        assert!(Authority::open("", &files.key).is_err() && Authority::open(&files.cert, "").is_err());
    }
}
