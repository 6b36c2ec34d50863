//! Tokens: by which clients without certificates are known.
//!
//! A token is `mst_ID_SECRET`. The file `tokens.toml` has the id, whose it is, how long it holds, and the SHA-256 of the
//! whole; never the token. *Why a plain hash and no argon2*: the secret is 256 random bits, not something that a person
//! made up, so nobody can go through the possible ones however fast a hash is; and it is computed for each call. *Why a
//! look-up by hash needs no constant time*: what a caller learns of a hash says nothing about the token behind it.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::Spanned;

use crate::model::Principal;

/// What a token begins with, so that it is recognised where it should not be.
const PREFIX: &str = "mst_";
/// The longest file, in bytes: what is longer is no list of tokens.
pub(super) const FILE_BYTES: u64 = 4 << 20;
const HEADER: &str = "\
# Who may call with a token. Here are hashes only: a token is shown once, when it is made.
# Written by `meshstore security token`; copy it to all nodes, which read it again when it changes.
";

type Hash = [u8; 32];

/// One token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name in lists and messages.
    pub id: String,
    /// Whose it is.
    pub principal: Principal,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// From when on it does not hold; `None`: it does until it is revoked.
    pub expires_ms: Option<u64>,
    hash: Hash,
}

/// The tokens of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<Hash, Token>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<TokenTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    id: Spanned<String>,
    principal: Spanned<String>,
    sha256: Spanned<String>,
    created: Spanned<String>,
    expires: Option<Spanned<String>>,
}

impl Tokens {
    /// Reads the text of a file. Errors: what is wrong, with file and line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let at = |span: std::ops::Range<usize>, rule: &str| format!("{}:{}: {rule}", path.display(), line(span.start));
        let file: File = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => at(span, error.message()),
            None => format!("{}: {}", path.display(), error.message()),
        })?;
        let mut tokens = Self::default();
        for table in file.token {
            let principal = table.principal.get_ref().parse().map_err(|rule: String| at(table.principal.span(), &rule));
            let principal = principal?;
            if !matches!(principal, Principal::Service(_) | Principal::Person(_)) {
                return Err(at(table.principal.span(), "a token is a service's or a person's"));
            }
            let hash = from_hex(table.sha256.get_ref())
                .ok_or_else(|| at(table.sha256.span(), "sha256 must be 64 hexadecimal digits"))?;
            let moment = |text: &Spanned<String>| {
                milliseconds(text.get_ref())
                    .ok_or_else(|| at(text.span(), "a date must be like 2027-01-31T12:00:00Z, and after 1970"))
            };
            let (created_ms, expires_ms) = (moment(&table.created)?, table.expires.as_ref().map(moment).transpose()?);
            let id = table.id.get_ref().clone();
            if id.is_empty() || id.len() > 64 || tokens.0.values().any(|token| token.id == id) {
                return Err(at(table.id.span(), "an id must have 1 to 64 bytes, and stand here only once"));
            }
            if tokens.0.insert(hash, Token { id, principal, created_ms, expires_ms, hash }).is_some() {
                return Err(at(table.sha256.span(), "this sha256 stands here twice"));
            }
        }
        Ok(tokens)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        let mut tokens: Vec<&Token> = self.0.values().collect();
        tokens.sort_by(|one, other| (one.created_ms, &one.id).cmp(&(other.created_ms, &other.id)));
        for Token { id, principal, created_ms, expires_ms, hash } in tokens {
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!(
                "\n[[token]]\nid = \"{id}\"\nprincipal = \"{principal}\"\nsha256 = \"{hash}\"\ncreated = \"{}\"\n",
                date(*created_ms)
            );
            if let Some(expires_ms) = expires_ms {
                text += &format!("expires = \"{}\"\n", date(*expires_ms));
            }
        }
        text
    }

    /// Makes a token: its whole text, which is kept nowhere else. Errors: the machine gives no random bytes.
    pub fn add(&mut self, principal: Principal, now_ms: u64, expires_ms: Option<u64>) -> Result<String, String> {
        let mut random = [0; 36];
        SystemRandom::new().fill(&mut random).map_err(|_| "the machine gives no random bytes")?;
        let (name, secret) = random.split_at(4);
        let id: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("{PREFIX}{id}_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let hash = hash_of(&text);
        // Dates in the file are of whole seconds.
        let (created_ms, expires_ms) = (now_ms / 1_000 * 1_000, expires_ms.map(|ms| ms / 1_000 * 1_000));
        self.0.insert(hash, Token { id, principal, created_ms, expires_ms, hash });
        Ok(text)
    }

    /// Forgets a token; `None` if there is none with this id.
    pub fn revoke(&mut self, id: &str) -> Option<Token> {
        let hash = self.0.values().find(|token| token.id == id)?.hash;
        self.0.remove(&hash)
    }

    /// All tokens.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.values()
    }

    /// The token of this text, whether or not it still holds.
    pub(super) fn find(&self, text: &str) -> Option<&Token> {
        self.0.get(&hash_of(text))
    }
}

impl Token {
    /// Whether it does not hold any more.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

fn hash_of(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn milliseconds(text: &str) -> Option<u64> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

/// Milliseconds since 1970 as a date, in UTC.
pub fn date(ms: u64) -> String {
    let date = i64::try_from(ms / 1_000).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| "9999-12-31T23:59:59Z".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000_000;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let mut tokens = Tokens::default();
        let admin = tokens.add(Principal::Person("admin".into()), NOW + 7, None).unwrap();
        let billing = tokens.add(Principal::Service("billing".into()), NOW, Some(NOW + 60_999)).unwrap();
        assert!(admin.starts_with(PREFIX) && admin.len() == 56, "{admin}");
        let text = tokens.text();
        for secret in [&admin, &billing] {
            assert!(!text.contains(secret.splitn(3, '_').nth(2).unwrap()));
        }
        let mut read = Tokens::parse(&text, Path::new("tokens.toml")).unwrap();
        assert_eq!(read, tokens);
        let found = read.find(&billing).unwrap().clone();
        assert_eq!((found.principal.to_string().as_str(), found.expires_ms), ("service/billing", Some(NOW + 60_000)));
        assert!(!found.has_expired(NOW + 59_999) && found.has_expired(NOW + 60_000));
        assert_eq!(read.find(&billing[1..]), None);
        assert_eq!(read.revoke(&found.id).as_ref(), Some(&found));
        assert_eq!((read.revoke(&found.id), read.find(&billing)), (None, None));
        assert!(read.find(&admin).is_some());
    }

    #[test]
    fn the_file_is_the_one_of_earlier_releases() {
        let text = "\n[[token]]\nid = \"3fa94c10\"\nprincipal = \"service/billing\"\n\
                    sha256 = \"fb0ec24ef25ec61c0adc18d30cd21a9eeae92c48a95f5a6aea1e2f6e5b7e3d0a\"\n\
                    created = \"2026-11-18T11:06:40Z\"\nexpires = \"2027-11-18T11:06:40Z\"\n";
        let tokens = Tokens::parse(text, Path::new("tokens.toml")).unwrap();
        let token = tokens.iter().next().unwrap();
        assert_eq!((token.created_ms, token.expires_ms), (NOW, Some(NOW + 365 * 86_400_000)));
        assert_eq!(tokens.text(), format!("{HEADER}{text}"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let right = format!(
            "[[token]]\nid = \"a\"\nprincipal = \"service/a\"\nsha256 = \"{}\"\ncreated = \"2026-01-01T00:00:00Z\"\n",
            "0".repeat(64)
        );
        assert!(Tokens::parse(&right, Path::new("t")).is_ok());
        assert_eq!(Tokens::parse("", Path::new("t")), Ok(Tokens::default()));
        for (from, to, expected) in [
            ("service/a", "node/1", "t:3: a token is a service's or a person's"),
            ("service/a", "anonymous", "t:3: a token is a service's or a person's"),
            ("service/a", "a", "t:3: \"a\" is no principal"),
            ("0000", "zz00", "t:4: sha256 must be 64 hexadecimal digits"),
            ("0000", "", "t:4: sha256 must be 64 hexadecimal digits"),
            ("2026-01-01T00:00:00Z", "yesterday", "t:5: a date must be like"),
            ("created", "made", "t:5: unknown field `made`"),
            ("[[token]]", "[[token]", "t:1: "),
            ("id = \"a\"", "id = \"\"", "t:2: an id must have"),
        ] {
            let error = Tokens::parse(&right.replacen(from, to, 1), Path::new("t")).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = Tokens::parse(&format!("{right}{right}"), Path::new("t")).unwrap_err();
        assert!(error.starts_with("t:7: an id must"), "{error}");
        let error = Tokens::parse(&format!("{right}{}", right.replace("\"a\"", "\"b\"")), Path::new("t")).unwrap_err();
        assert!(error.starts_with("t:9: this sha256 stands here twice"), "{error}");
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hash: String = hash_of("abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(from_hex(&hash), Some(hash_of("abc")));
    }
}
