//! Who calls.
//!
//! Its text (`service/billing`) is what stands in proposals and in sessions, what one node tells another of a caller,
//! and, behind `meshstore://`, the name in a certificate. So a name has only characters that all of these can hold.

use std::{fmt, str::FromStr};

/// Longest name, in bytes.
const NAME_BYTES: usize = 128;
const ANONYMOUS: &str = "anonymous";

/// Who calls, as a certificate or a token says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// Nobody in particular: the node knows no callers, because it runs without TLS.
    Anonymous,
    /// A program.
    Service(String),
    /// A human being.
    Person(String),
    /// A node of the cluster.
    Node(u64),
}

impl Principal {
    /// Whether anything has vouched for the caller.
    pub fn is_known(&self) -> bool {
        *self != Self::Anonymous
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Person(name) => write!(f, "person/{name}"),
            Self::Node(id) => write!(f, "node/{id}"),
        }
    }
}

impl FromStr for Principal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        let shape = || format!("\"{text}\" is no principal: write service/NAME, person/NAME or node/ID");
        let (kind, name) = text.split_once('/').ok_or_else(shape)?;
        match kind {
            "service" => Ok(Self::Service(checked(name)?)),
            "person" => Ok(Self::Person(checked(name)?)),
            // One text for each node: no zeros in front, no sign.
            "node" => match name.parse::<u64>() {
                Ok(id) if id > 0 && id.to_string() == name => Ok(Self::Node(id)),
                _ => Err(format!("\"{name}\" is no node id: a number from 1")),
            },
            _ => Err(shape()),
        }
    }
}

fn checked(name: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(is_part) {
        return Err(format!(
            "the name \"{}\" must be 1 to {NAME_BYTES} letters, digits, and . _ - @",
            name.chars().take(80).collect::<String>().escape_debug()
        ));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_its_text() {
        for text in ["anonymous", "service/billing", "person/ada@example.org", "node/1", "node/18446744073709551615"] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        let long = format!("service/{}", "x".repeat(NAME_BYTES + 1));
        for wrong in [
            "",
            "billing",
            "service/",
            "service/a b",
            "service/a/b",
            "person/ä",
            "person/a\n",
            "node/",
            "node/0",
            "node/+1",
            "node/01",
            "root/x",
            "Anonymous",
            &long,
        ] {
            assert!(wrong.parse::<Principal>().is_err(), "{wrong}");
        }
    }
}
