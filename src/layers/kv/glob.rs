//! Patterns of keys: `*` stands for any run of characters, `\*` for a star, `\\` for a backslash.

use crate::{Error, Result, layers::check, limits};

/// A pattern that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// What stands between the stars; there is at least one part.
    parts: Vec<String>,
}

impl Glob {
    /// Reads a pattern; an empty one matches every key. Errors: `InvalidArgument`.
    pub(super) fn parse(pattern: &str) -> Result<Self> {
        check::check_length("pattern", pattern.len(), 2 * limits::KEY_BYTES)?;
        if pattern.is_empty() {
            return Ok(Self { parts: vec![String::new(), String::new()] });
        }
        let (mut parts, mut part) = (Vec::new(), String::new());
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' => parts.push(std::mem::take(&mut part)),
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => part.push(escaped),
                    _ => return Err(Error::invalid("pattern", pattern, "a backslash must stand before * or \\")),
                },
                other => part.push(other),
            }
        }
        parts.push(part);
        Ok(Self { parts })
    }

    /// What every match begins with.
    pub(super) fn prefix(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// Whether a key matches.
    pub(super) fn matches(&self, key: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|whole| whole == key);
        };
        let Some(mut rest) = key.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(key)
    }

    #[test]
    fn a_star_is_any_run() {
        for (pattern, key) in [
            ("", "a"),
            ("*", ""),
            ("a", "a"),
            ("a*", "a"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("*b*", "abc"),
            ("a*c", "ac"),
            ("a*b*c", "a1b2bc"),
            ("**", "x"),
            ("\\*", "*"),
            ("a\\\\*", "a\\b"),
            ("ü*", "üb"),
        ] {
            assert!(matches(pattern, key), "{pattern} {key}");
        }
        for (pattern, key) in [
            ("a", "ab"),
            ("a", ""),
            ("a*c", "abcd"),
            ("aa*aa", "aaa"),
            ("*b*", "ac"),
            ("\\*", "a"),
            ("A", "a"),
            ("%", "a"),
        ] {
            assert!(!matches(pattern, key), "{pattern} {key}");
        }
        assert_eq!(Glob::parse("user:*:x").unwrap().prefix(), "user:");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["\\", "a\\b", "*\\"] {
            assert!(matches!(Glob::parse(pattern), Err(Error::InvalidArgument { .. })), "{pattern}");
        }
        assert!(Glob::parse(&"a".repeat(2 * limits::KEY_BYTES + 1)).is_err());
    }

    /// One that tries everything.
    fn naive(pattern: &[char], key: &[char]) -> bool {
        match pattern {
            [] => key.is_empty(),
            ['*', rest @ ..] => (0..=key.len()).any(|at| naive(rest, &key[at..])),
            [first, rest @ ..] => key.first() == Some(first) && naive(rest, &key[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_a_naive_one_does(pattern in "[ab*]{1,8}", key in "[ab]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &key), naive(&characters(&pattern), &characters(&key)));
        }
    }
}
