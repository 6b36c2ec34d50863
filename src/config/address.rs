//! `host:port`.

use std::{fmt, net::IpAddr, str::FromStr};

/// Where a node listens, which is also how the others and its clients reach it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host: a name, or an IP address (without brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = |why: &str| format!("\"{text}\" is no address: {why}; write it like 127.0.0.1:7401");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| malformed("it has no port"))?;
        let port = match port.parse::<u16>() {
            Ok(0) => return Err(malformed("port 0 cannot be reached by others")),
            Ok(port) => port,
            Err(_) => return Err(malformed("its port is not a number from 1 to 65535")),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match (bare, host.parse::<IpAddr>()) {
            (Some(bare), _) => match bare.parse::<IpAddr>() {
                Ok(ip @ IpAddr::V6(_)) => ip.to_string(),
                _ => return Err(malformed("brackets are for IPv6 addresses")),
            },
            (None, Ok(IpAddr::V6(_))) => return Err(malformed("an IPv6 address needs brackets")),
            (None, Ok(ip)) => ip.to_string(),
            (None, Err(_)) if is_host_name(host) => host.to_ascii_lowercase(),
            (None, Err(_)) => return Err(malformed("its host is neither a name nor an IP address")),
        };
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(malformed("others cannot connect to an unspecified address"));
        }
        Ok(Self { host, port })
    }
}

/// Letters, digits, hyphens, dots; not all digits and dots, which would be a broken IP address.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(label) && host.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
