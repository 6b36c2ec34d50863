//! Numbers as JSON writes them, exactly: `0.1`, 2^64 + 1 and 1e400 are what they say, and nothing else is equal to them.

use std::{cmp::Ordering, fmt};

/// Exponents beyond this are no numbers that anything is compared with: sums of them would have to be kept from overflowing.
const EXPONENT: i64 = 1 << 60;

/// `0.digits * 10^exponent`, negative or not. Equal numbers are equal field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub(super) negative: bool,
    pub(super) exponent: i64,
    /// 0 to 9 each, neither the first nor the last of them 0; none: it is zero.
    pub(super) digits: Vec<u8>,
}

impl Decimal {
    /// Reads the text of a JSON number; `None` if it is none, or its exponent is beyond 2^60.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = Vec::with_capacity(whole.len() + fraction.len());
        for byte in whole.bytes().chain(fraction.bytes()) {
            digits.push(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        if whole.is_empty() {
            return None;
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { negative: false, exponent: 0, digits });
        }
        let exponent: i64 = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        let exponent = exponent.checked_add(point).filter(|exponent| exponent.abs() < EXPONENT)?;
        Some(Self { negative, exponent, digits })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // Digits of which others are the beginning are the smaller, as no more of them are not zero.
        let size = |number: &Self| (number.exponent, number.digits.clone());
        self.sign().cmp(&other.sign()).then_with(|| match self.sign() {
            0 => Ordering::Equal,
            1 => size(self).cmp(&size(other)),
            _ => size(other).cmp(&size(self)),
        })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        match usize::try_from(self.exponent) {
            Ok(exponent) if exponent == digits.len() => f.write_str(&digits),
            _ => write!(f, "0.{digits}e{}", self.exponent),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_ordered_exactly() {
        let ascending = [
            "-1e400",
            "-9007199254740993",
            "-9007199254740992",
            "-1.5",
            "-1",
            "-0.1",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000000000001",
            "0.2",
            "1",
            "1.5",
            "2",
            "10",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "1e400",
            "1e1000000000000000000",
        ];
        for (at, low) in ascending.iter().enumerate() {
            assert_eq!(decimal(low).cmp(&decimal(low)), Ordering::Equal);
            for high in &ascending[at + 1..] {
                assert_eq!(decimal(low).cmp(&decimal(high)), Ordering::Less, "{low} {high}");
                assert_eq!(decimal(high).cmp(&decimal(low)), Ordering::Greater, "{low} {high}");
            }
        }
        for (left, right) in [("1", "1.0"), ("100", "1e2"), ("1E+2", "100.00"), ("-0", "0.0e7"), ("0.001", "1e-3")] {
            assert_eq!(decimal(left), decimal(right), "{left} {right}");
        }
        assert_eq!(decimal("0e99999999999999999999"), decimal("0"));
        for no_number in ["", "-", ".5", "a", "1e99999999999999999999", "1e", "1.x", "+1", "1e2000000000000000000"] {
            assert_eq!(Decimal::parse(no_number), None, "{no_number}");
        }
        assert_eq!(decimal("-1200").to_string(), "-0.12e4");
        assert_eq!(decimal("12").to_string(), "12");
    }

    proptest! {
        #[test]
        fn integers_are_ordered_as_the_machine_does(a in any::<i128>(), b in any::<i128>(), c in any::<i16>(), d in any::<i16>()) {
            prop_assert_eq!(decimal(&a.to_string()).cmp(&decimal(&b.to_string())), a.cmp(&b));
            prop_assert_eq!(decimal(&c.to_string()).cmp(&decimal(&d.to_string())), c.cmp(&d));
        }

        #[test]
        fn short_decimals_are_ordered_as_the_machine_does(a in -9_999i32..9_999, b in -9_999i32..9_999) {
            let text = |n: i32| format!("{}{}.{:02}", if n < 0 { "-" } else { "" }, n.abs() / 100, n.abs() % 100);
            prop_assert_eq!(decimal(&text(a)).cmp(&decimal(&text(b))), a.cmp(&b));
            let exponent = |n: i32| format!("{n}e-2");
            prop_assert_eq!(decimal(&exponent(a)), decimal(&text(a)));
        }
    }
}
