//! Numbers as JSON writes them, exactly: `0.1`, 2^64 + 1 and 1e400 are what they say, and nothing else is equal to them.

use std::{cmp::Ordering, fmt};

/// Exponents beyond this are no numbers that anything is compared with: sums of them would have to be kept from overflowing.
const EXPONENT: i64 = 1 << 60;

/// Most digits of a sum.
const PLACES: usize = 1_000;
/// Whole numbers of more digits, and fractions with more zeros behind the point, are written with an exponent.
const WRITTEN_OUT: i64 = 40;
const SMALLEST_WRITTEN_OUT: i64 = 6;

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

    /// The sum, exactly; `None` if it would take more than [`PLACES`] digits to write it.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let lowest = |number: &Self| number.exponent - number.digits.len() as i64;
        let (low, high) = match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, _) => return Some(other.clone()),
            (_, true) => return Some(self.clone()),
            _ => (lowest(self).min(lowest(other)), self.exponent.max(other.exponent)),
        };
        // The least place first, and one more for what is carried.
        let places = usize::try_from(high - low).ok().filter(|places| *places <= PLACES)? + 1;
        let mut sum = vec![0i8; places];
        for number in [self, other] {
            let from = usize::try_from(lowest(number) - low).ok()?;
            for (place, digit) in sum.iter_mut().skip(from).zip(number.digits.iter().rev()) {
                let digit = i8::try_from(*digit).ok()?;
                *place += if number.negative { -digit } else { digit };
            }
        }
        let negative = sum.iter().rev().find(|place| **place != 0).is_some_and(|place| *place < 0);
        let mut carried = 0;
        for place in &mut sum {
            let digit = if negative { -*place } else { *place } + carried;
            carried = digit.div_euclid(10);
            *place = digit.rem_euclid(10);
        }
        let zeros = sum.iter().rev().take_while(|digit| **digit == 0).count();
        let mut digits: Vec<u8> = sum.iter().rev().skip(zeros).filter_map(|digit| u8::try_from(*digit).ok()).collect();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { negative: false, exponent: 0, digits });
        }
        let exponent = low + i64::try_from(places - zeros).ok()?;
        Some(Self { negative, exponent, digits })
    }

    /// As JSON writes it: whole numbers without a point, very large and very small ones with an exponent.
    pub fn to_json(&self) -> String {
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let sign = if self.negative { "-" } else { "" };
        let count = digits.len() as i64;
        match self.exponent {
            _ if digits.is_empty() => "0".into(),
            exponent if (count..=WRITTEN_OUT).contains(&exponent) => {
                format!("{sign}{digits}{}", "0".repeat(usize::try_from(exponent - count).unwrap_or_default()))
            }
            exponent if (1..count).contains(&exponent) => {
                let (whole, fraction) = digits.split_at(usize::try_from(exponent).unwrap_or_default());
                format!("{sign}{whole}.{fraction}")
            }
            exponent if (-SMALLEST_WRITTEN_OUT..=0).contains(&exponent) => {
                format!("{sign}0.{}{digits}", "0".repeat(usize::try_from(-exponent).unwrap_or_default()))
            }
            exponent => {
                let (first, rest) = digits.split_at(1);
                let point = if rest.is_empty() { "" } else { "." };
                format!("{sign}{first}{point}{rest}e{}", exponent - 1)
            }
        }
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

    #[test]
    fn sums_are_exact() {
        for (left, right, sum) in [
            ("1", "1", "2"),
            ("0", "-0.50", "-0.5"),
            ("0.1", "0.2", "0.3"),
            ("9007199254740993", "1", "9007199254740994"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("-1", "1", "0"),
            ("5", "-7.25", "-2.25"),
            ("99", "1", "100"),
            ("-1000", "1", "-999"),
            ("1e50", "0", "1e50"),
            ("1.5e-9", "0", "1.5e-9"),
            ("1e3", "-0.001", "999.999"),
        ] {
            assert_eq!(decimal(left).plus(&decimal(right)).unwrap().to_json(), sum, "{left} + {right}");
        }
        assert_eq!(decimal("1e2000").plus(&decimal("1")), None);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_machine(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, places in 0u8..4) {
            let scaled = |n: i64| decimal(&format!("{n}e-{places}"));
            let sum = scaled(a).plus(&scaled(b)).unwrap();
            prop_assert_eq!(&sum, &scaled(a + b));
            prop_assert_eq!(decimal(&sum.to_json()), sum);
        }

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
