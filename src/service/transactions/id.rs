//! Names of open transactions.
//!
//! A name says which node keeps the transaction, and in which term it led: so whoever leads later knows that it is lost, and
//! need not have heard of it. The rest is chance, so that nobody guesses it.

use std::{fmt, str::FromStr};

use crate::Error;

/// The name of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// The node that keeps it.
    pub(super) node: u64,
    /// The term in which it leads.
    pub(super) term: u64,
    pub(super) number: u128,
}

/// How a name begins.
const PREFIX: &str = "tx";

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{}-{}-{:032x}", self.node, self.term, self.number)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (node, rest) = text.strip_prefix(PREFIX)?.strip_prefix('-')?.split_once('-')?;
            let (term, number) = rest.split_once('-')?;
            let number = u128::from_str_radix(number, 16).ok()?;
            Some(Self { node: node.parse().ok()?, term: term.parse().ok()?, number })
        };
        // Only as it was given out: one transaction has one name.
        parse()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| invalid(text, "is not what BeginTransaction answered"))
    }
}

/// What a caller is told of a name that is none, or of a transaction that has ended.
pub(super) fn invalid(id: &str, why: &str) -> Error {
    Error::invalid("transaction", id, format!("Invalid transaction id: it {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_given_out_and_not_otherwise() {
        let id = Id { node: 3, term: 17, number: 0xAB << 100 };
        let text = id.to_string();
        assert_eq!(text, "tx-3-17-00000ab0000000000000000000000000");
        assert_eq!(text.parse(), Ok(id));
        let bad = ["", "tx", "tx-1", "tx-1-2", "tx-1-2-3", "3-17-00000ab0000000000000000000000000", "tx--1-2-0", "ß"];
        for text in
            bad.into_iter().chain([text.to_uppercase().as_str(), &format!("{text}0"), &text.replace("-3-", "-03-")])
        {
            let Err(Error::InvalidArgument { field, rule, .. }) = text.parse::<Id>() else { panic!("{text}") };
            assert_eq!((field.as_str(), rule.starts_with("Invalid transaction id")), ("transaction", true));
        }
    }
}
