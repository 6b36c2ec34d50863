//! Which call this is, wherever it is worked on: the header `traceparent` of W3C's Trace Context.
//!
//! A caller names its call once; nodes pass the name on as it is, and say it with what they log. A header that is none is
//! ignored, as the standard says: the first node gives the call a name then.

use std::fmt;

/// The header.
pub const TRACEPARENT: &str = "traceparent";
/// The header that goes with it, and means nothing without it.
pub const TRACESTATE: &str = "tracestate";

/// The length of the header in version 00; later ones are longer, and begin alike.
const LENGTH: usize = 55;

/// The name of a call. Its text is the header of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// Of two random numbers. Not sampled: we record nothing but logs.
    pub fn new(trace: u128, parent: u64) -> Self {
        Self { trace: trace.max(1), parent: parent.max(1), flags: 0 }
    }

    /// What the header says. `None` if it is not one.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (head, rest) = header.split_at_checked(LENGTH)?;
        let [v1, v2, b'-', ids @ .., b'-', f1, f2] = head else { return None };
        let (trace, parent) = ids.split_at_checked(32)?;
        let version = hex(&[*v1, *v2])?;
        let later = version > 0 && version < 0xFF && (rest.is_empty() || rest.starts_with(b"-"));
        if !(later || version == 0 && rest.is_empty()) {
            return None;
        }
        let (trace, parent) = (hex(trace)?, u64::try_from(hex(parent.strip_prefix(b"-")?)?).ok()?);
        let flags = u8::try_from(hex(&[*f1, *f2])?).ok()?;
        (trace != 0 && parent != 0).then_some(Self { trace, parent, flags })
    }

    /// What all that belongs to one trace has in common: 32 hex digits.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace)
    }
}

/// The id of a trace; its text is 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

/// The number that lower-case hex digits say: at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written() {
        let parent = TraceParent::parse(HEADER.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), HEADER);
        assert_eq!(parent.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let new = TraceParent::new(0xAB, 0);
        assert_eq!(new.to_string(), "00-000000000000000000000000000000ab-0000000000000001-00");
        assert_eq!(TraceParent::parse(new.to_string().as_bytes()), Some(new));
    }

    #[test]
    fn what_is_no_header_is_ignored() {
        for later in [HEADER.replacen("00", "cc", 1), HEADER.replacen("00", "01", 1) + "-more"] {
            assert_eq!(TraceParent::parse(later.as_bytes()), TraceParent::parse(HEADER.as_bytes()), "{later}");
        }
        for wrong in [
            "",
            "00",
            &HEADER[..54],
            &format!("{HEADER}-more"),
            &format!("{HEADER} "),
            &HEADER.to_uppercase(),
            &HEADER.replacen("00", "ff", 1),
            &(HEADER.replacen("00", "01", 1) + "more"),
            &HEADER.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &HEADER.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &HEADER.replace('-', "_"),
            &HEADER.replace('b', "g"),
            &HEADER.replace("-00f0", "000f0"),
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
