//! [`Error`] as a gRPC status, and back.
//!
//! Every status that a node makes carries a `google.rpc.ErrorInfo` of the domain `meshstore`, whose
//! `reason` names the variant and whose metadata holds its fields; beside it stand the standard details
//! that generic tools know (`BadRequest`, `ResourceInfo`, `RetryInfo`). A status without that
//! `ErrorInfo` was not made by a node's code but by a transport, a proxy or the gRPC library, which
//! cannot tell whether the call was executed. It is read as [`Error::Unknown`] unless its kind is certain.
//!
//! Texts are shortened, so that a status always fits the 8 KiB of headers that common clients accept.

use std::{collections::HashMap, error::Error as _, time::Duration};

use tonic::{Code, ConnectError, Status};
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt};

use crate::{Error, model::kind};

/// The `ErrorInfo` domain of all statuses that nodes make.
pub const DOMAIN: &str = "meshstore";
/// When to try again if the server was too busy even to say when, in milliseconds.
const RETRY_AFTER_MS: u64 = 100;
/// Longest status message, in bytes.
const MESSAGE_BYTES: usize = 512;
/// Longest text of one detail, in bytes; no shorter than the longest key and its namespace, which `NotFound` names.
const DETAIL_BYTES: usize = 1_536;
const _: () = assert!(DETAIL_BYTES >= crate::limits::KEY_BYTES + crate::limits::ID_BYTES + 64);

mod reason {
    pub(super) const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
    pub(super) const NOT_FOUND: &str = "NOT_FOUND";
    pub(super) const ALREADY_EXISTS: &str = "ALREADY_EXISTS";
    pub(super) const REFUSED: &str = "REFUSED";
    pub(super) const CONFLICT: &str = "CONFLICT";
    pub(super) const CONDITION_FAILED: &str = "CONDITION_FAILED";
    pub(super) const FENCED: &str = "FENCED";
    pub(super) const SESSION_EXPIRED: &str = "SESSION_EXPIRED";
    pub(super) const VIEW_TOO_OLD: &str = "VIEW_TOO_OLD";
    pub(super) const NO_LONGER_COVERED: &str = "NO_LONGER_COVERED";
    pub(super) const TOO_STALE: &str = "TOO_STALE";
    pub(super) const NOT_APPLIED: &str = "NOT_APPLIED";
    pub(super) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
    pub(super) const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    pub(super) const TOO_BUSY: &str = "TOO_BUSY";
    pub(super) const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
    pub(super) const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    pub(super) const TRANSACTION_ABORTED: &str = "TRANSACTION_ABORTED";
    pub(super) const UNEXPECTED: &str = "UNEXPECTED";
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        status_from_error(&error)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        error_from_status(&status)
    }
}

/// The status that tells a client this error.
pub fn status_from_error(error: &Error) -> Status {
    let (code, reason, fields) = parts(error);
    let metadata: HashMap<_, _> =
        fields.into_iter().map(|(name, text)| (name.into(), shortened(&text, DETAIL_BYTES))).collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    match error {
        Error::InvalidArgument { field, rule, .. } => {
            details.add_bad_request_violation(shortened(field, DETAIL_BYTES), shortened(rule, DETAIL_BYTES));
        }
        Error::NotFound { kind, name } | Error::AlreadyExists { kind, name } => {
            details.set_resource_info(*kind, shortened(name, DETAIL_BYTES), "", "");
        }
        Error::ResourceExhausted { retry_after_ms, .. } => {
            details.set_retry_info(Some(Duration::from_millis(*retry_after_ms)));
        }
        _ => {}
    }
    Status::with_error_details(code, shortened(&error.to_string(), MESSAGE_BYTES), details)
}

/// Code, reason, and the fields that no standard detail holds exactly.
fn parts(error: &Error) -> (Code, &'static str, Vec<(&'static str, String)>) {
    match error {
        Error::InvalidArgument { value, .. } => {
            (Code::InvalidArgument, reason::INVALID_ARGUMENT, vec![("value", value.clone())])
        }
        Error::NotFound { .. } => (Code::NotFound, reason::NOT_FOUND, vec![]),
        Error::AlreadyExists { .. } => (Code::AlreadyExists, reason::ALREADY_EXISTS, vec![]),
        Error::Refused(why) => (Code::FailedPrecondition, reason::REFUSED, vec![("text", why.clone())]),
        Error::Conflict(on) => (Code::Aborted, reason::CONFLICT, vec![("text", on.clone())]),
        Error::ConditionFailed(what) => (Code::Aborted, reason::CONDITION_FAILED, vec![("text", what.clone())]),
        Error::Fenced { lock, token, newest } => {
            let numbers = [("token", token), ("newest", newest)].map(|(name, number)| (name, number.to_string()));
            (Code::FailedPrecondition, reason::FENCED, [("lock", lock.clone())].into_iter().chain(numbers).collect())
        }
        Error::SessionExpired { session } => {
            (Code::FailedPrecondition, reason::SESSION_EXPIRED, vec![("session", session.to_string())])
        }
        Error::ViewTooOld { revision, oldest } => {
            let fields = vec![("revision", revision.to_string()), ("oldest", oldest.to_string())];
            (Code::OutOfRange, reason::VIEW_TOO_OLD, fields)
        }
        Error::NoLongerCovered { revision, oldest } => {
            let fields = vec![("revision", revision.to_string()), ("oldest", oldest.to_string())];
            (Code::OutOfRange, reason::NO_LONGER_COVERED, fields)
        }
        Error::TooStale { age_ms, max_age_ms } => {
            let fields = vec![("age_ms", age_ms.to_string()), ("max_age_ms", max_age_ms.to_string())];
            (Code::FailedPrecondition, reason::TOO_STALE, fields)
        }
        Error::Unavailable { reason, leader } => {
            let mut fields = vec![("text", reason.clone())];
            fields.extend(leader.iter().map(|leader| ("leader", leader.clone())));
            (Code::Unavailable, reason::NOT_APPLIED, fields)
        }
        Error::Unknown(why) => (Code::Unknown, reason::OUTCOME_UNKNOWN, vec![("text", why.clone())]),
        Error::DeadlineExceeded { deadline_ms, waiting_for, may_have_applied } => {
            let fields = vec![
                ("deadline_ms", deadline_ms.to_string()),
                ("waiting_for", waiting_for.clone()),
                ("may_have_applied", may_have_applied.to_string()),
            ];
            (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, fields)
        }
        Error::ResourceExhausted { reason, retry_after_ms } => {
            let fields = vec![("text", reason.clone()), ("retry_after_ms", retry_after_ms.to_string())];
            (Code::ResourceExhausted, reason::TOO_BUSY, fields)
        }
        Error::PermissionDenied(why) => {
            (Code::PermissionDenied, reason::PERMISSION_DENIED, vec![("text", why.clone())])
        }
        Error::Unauthenticated(why) => (Code::Unauthenticated, reason::UNAUTHENTICATED, vec![("text", why.clone())]),
        Error::TransactionAborted(why) => (Code::Aborted, reason::TRANSACTION_ABORTED, vec![("text", why.clone())]),
        Error::Unexpected(what) => (Code::Internal, reason::UNEXPECTED, vec![("text", what.clone())]),
    }
}

/// The error that a status tells.
pub fn error_from_status(status: &Status) -> Error {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let told = info.and_then(|info| from_details(info, &details));
    told.unwrap_or_else(|| from_transport(status))
}

/// `None` if the details are not what [`status_from_error`] makes (of a newer version, say).
fn from_details(info: &ErrorInfo, details: &ErrorDetails) -> Option<Error> {
    let text = |name: &str| info.metadata.get(name).cloned();
    let number = |name: &str| info.metadata.get(name).and_then(|number| number.parse::<u64>().ok());
    Some(match info.reason.as_str() {
        reason::INVALID_ARGUMENT => {
            let violation = details.bad_request()?.field_violations.first()?;
            let (field, rule) = (violation.field.clone(), violation.description.clone());
            Error::InvalidArgument { field, value: text("value")?, rule }
        }
        reason::NOT_FOUND => {
            let resource = details.resource_info()?;
            Error::NotFound { kind: kind::known(&resource.resource_type), name: resource.resource_name.clone() }
        }
        reason::ALREADY_EXISTS => {
            let resource = details.resource_info()?;
            Error::AlreadyExists { kind: kind::known(&resource.resource_type), name: resource.resource_name.clone() }
        }
        reason::REFUSED => Error::Refused(text("text")?),
        reason::CONFLICT => Error::Conflict(text("text")?),
        reason::TRANSACTION_ABORTED => Error::TransactionAborted(text("text")?),
        reason::CONDITION_FAILED => Error::ConditionFailed(text("text")?),
        reason::FENCED => Error::Fenced { lock: text("lock")?, token: number("token")?, newest: number("newest")? },
        reason::SESSION_EXPIRED => Error::SessionExpired { session: number("session")? },
        reason::VIEW_TOO_OLD => Error::ViewTooOld { revision: number("revision")?, oldest: number("oldest")? },
        reason::NO_LONGER_COVERED => {
            Error::NoLongerCovered { revision: number("revision")?, oldest: number("oldest")? }
        }
        reason::TOO_STALE => Error::TooStale { age_ms: number("age_ms")?, max_age_ms: number("max_age_ms")? },
        reason::NOT_APPLIED => Error::Unavailable { reason: text("text")?, leader: text("leader") },
        reason::OUTCOME_UNKNOWN => Error::Unknown(text("text")?),
        reason::DEADLINE_EXCEEDED => Error::DeadlineExceeded {
            deadline_ms: number("deadline_ms")?,
            waiting_for: text("waiting_for")?,
            // Whatever is not a clear no leaves the outcome open.
            may_have_applied: text("may_have_applied")? != "false",
        },
        reason::TOO_BUSY => {
            Error::ResourceExhausted { reason: text("text")?, retry_after_ms: number("retry_after_ms")? }
        }
        reason::PERMISSION_DENIED => Error::PermissionDenied(text("text")?),
        reason::UNAUTHENTICATED => Error::Unauthenticated(text("text")?),
        reason::UNEXPECTED => Error::Unexpected(text("text")?),
        _ => return None,
    })
}

/// What a status means that was not made by a node's code.
fn from_transport(status: &Status) -> Error {
    let tls = if never_connected(status) { from_handshake } else { from_lost_connection };
    if let Some(error) = sources(status).find_map(tls) {
        return error;
    }
    let text = format!("{:?}: {}", status.code(), status.message());
    // Without a source the status came over the wire, from a server or proxy that is at least running.
    let answered = status.source().is_none();
    match status.code() {
        // No connection, no call: the only loss of which it is certain that nothing happened.
        Code::Unavailable if never_connected(status) => Error::Unavailable { reason: text, leader: None },
        // Load shedding and message limits stand in front of the handlers.
        Code::ResourceExhausted if answered => {
            Error::ResourceExhausted { reason: text, retry_after_ms: RETRY_AFTER_MS }
        }
        Code::InvalidArgument | Code::OutOfRange if answered => Error::invalid("request", "", text),
        Code::PermissionDenied if answered => Error::PermissionDenied(text),
        Code::Unauthenticated if answered => Error::Unauthenticated(text),
        // Somebody else may: while nodes are upgraded one after the other, or behind an endpoint that is no node.
        Code::Unimplemented => {
            let reason =
                "the node that was asked does not know this call: it runs an older meshstore, or is none".into();
            Error::Unavailable { reason, leader: None }
        }
        _ => Error::Unknown(text),
    }
}

/// What stopped TLS from coming about.
fn from_handshake(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    use rustls::{CertificateError as Certificate, Error as Tls};
    // An `io::Error` hides what it was made of from `source`.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = error.downcast_ref::<Tls>().or_else(|| inner?.downcast_ref());
    let unavailable = |reason: String| Some(Error::Unavailable { reason, leader: None });
    match tls {
        Some(Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })) => {
            unavailable("the node's certificate has expired".into())
        }
        Some(Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature)) => {
            unavailable("the node's certificate is not signed by the given authority (--ca)".into())
        }
        Some(Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. })) => {
            unavailable("the node's certificate is not for the host that was called".into())
        }
        Some(Tls::InvalidCertificate(error)) => unavailable(format!("the node's certificate cannot be used: {error}")),
        Some(Tls::InvalidMessage(_)) => unavailable("the node does not speak TLS: leave out --ca".into()),
        _ => None,
    }
}

/// Why the node ended a connection that seemed to stand, before it read a call: only h2's text of it is left.
///
/// In TLS 1.3 a client has done its part of the handshake before the node has looked at its certificate. Plain text is
/// answered by the end of the connection, too.
fn from_lost_connection(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    if error.source().is_some() {
        return None;
    }
    let text = format!("{error:?}");
    if text.contains("INADEQUATE_SECURITY") {
        let rule = "the node speaks TLS: give the certificate of the cluster's authority (--ca)";
        return Some(Error::invalid("endpoint", "", rule));
    }
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let alert = alert.split(|char: char| !char.is_alphanumeric()).next()?;
    // Of a handshake only; others may come in the middle of a call.
    let of_certificates = ["AccessDenied", "UnknownCA", "UnsupportedCertificate"].contains(&alert);
    let refused = of_certificates || alert.starts_with("Certificate") || alert == "BadCertificate";
    refused.then(|| Error::Unauthenticated(format!("the node refuses the client's certificate: {alert}")))
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |error| (**error).source())
}

fn never_connected(status: &Status) -> bool {
    sources(status).any(|error| error.is::<ConnectError>())
}

/// At most `limit` bytes of a text, with a mark where it was cut.
fn shortened(text: &str, limit: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= limit {
        return text.into();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(MARK.len()));
    format!("{}{MARK}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Vec<Error> {
        vec![
            Error::invalid("key", "a\tb", "must not be empty"),
            Error::NotFound { kind: "node state", name: "é\n\"x".into() },
            Error::NotFound { kind: "state", name: "k".repeat(crate::limits::KEY_BYTES) },
            Error::AlreadyExists { kind: "namespace", name: "users".into() },
            Error::Refused("the scope is full".into()),
            Error::Conflict("key a".into()),
            Error::ConditionFailed("key a has version 2".into()),
            Error::Fenced { lock: "build".into(), token: 7, newest: 0 },
            Error::SessionExpired { session: u64::MAX },
            Error::ViewTooOld { revision: 3, oldest: 9 },
            Error::NoLongerCovered { revision: 3, oldest: 9 },
            Error::TooStale { age_ms: u64::MAX, max_age_ms: 5 },
            Error::Unavailable { reason: "no leader".into(), leader: None },
            Error::Unavailable { reason: "not the leader".into(), leader: Some("127.0.0.1:7001".into()) },
            Error::Unknown("lost leadership".into()),
            Error::DeadlineExceeded { deadline_ms: 10, waiting_for: "apply".into(), may_have_applied: true },
            Error::DeadlineExceeded { deadline_ms: 10, waiting_for: "a leader".into(), may_have_applied: false },
            Error::ResourceExhausted { reason: "queue".into(), retry_after_ms: u64::MAX },
            Error::PermissionDenied("no".into()),
            Error::Unauthenticated("no token".into()),
            Error::TransactionAborted("key a was changed by others".into()),
            Error::Unexpected("what".into()),
        ]
    }

    #[test]
    fn every_error_survives_the_wire() {
        for error in one_of_each() {
            let mut headers = tonic::codegen::http::HeaderMap::new();
            status_from_error(&error).add_header(&mut headers).unwrap();
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(error_from_status(&status), error);
        }
    }

    #[test]
    fn the_codes_are_the_documented_ones() {
        use Code::*;
        let codes: Vec<Code> = one_of_each().iter().map(|error| status_from_error(error).code()).collect();
        let expected = [
            InvalidArgument,
            NotFound,
            NotFound,
            AlreadyExists,
            FailedPrecondition,
            Aborted,
            Aborted,
            FailedPrecondition,
            FailedPrecondition,
            OutOfRange,
            OutOfRange,
            FailedPrecondition,
            Unavailable,
            Unavailable,
            Unknown,
            DeadlineExceeded,
            DeadlineExceeded,
            ResourceExhausted,
            PermissionDenied,
            Unauthenticated,
            Aborted,
            Internal,
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn a_call_that_a_node_does_not_know_is_for_another() {
        let error = error_from_status(&Status::unimplemented(""));
        assert!(matches!(&error, Error::Unavailable { reason, .. } if reason.contains("older meshstore")), "{error}");
        assert!(!error.may_have_applied());
    }

    #[test]
    fn the_standard_details_say_the_same() {
        let status = status_from_error(&Error::invalid("key", "", "must not be empty"));
        let violation = status.get_details_bad_request().unwrap().field_violations.remove(0);
        assert_eq!((violation.field.as_str(), violation.description.as_str()), ("key", "must not be empty"));
        let status = status_from_error(&Error::NotFound { kind: "route", name: "a".into() });
        let resource = status.get_details_resource_info().unwrap();
        assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("route", "a"));
        let status = status_from_error(&Error::ResourceExhausted { reason: "q".into(), retry_after_ms: 250 });
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_long_text_is_cut_and_the_headers_stay_small() {
        let long = "ü\u{7}".repeat(50_000);
        for error in [Error::Refused(long.clone()), Error::invalid(&long, &long, &long)] {
            let mut headers = tonic::codegen::http::HeaderMap::new();
            status_from_error(&error).add_header(&mut headers).unwrap();
            let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(size < 8 << 10, "{size} bytes of headers");
        }
    }

    #[test]
    fn an_unknown_kind_is_an_item() {
        let details = {
            let mut details = ErrorDetails::with_error_info("NOT_FOUND", DOMAIN, HashMap::new());
            details.set_resource_info("something of the future", "x", "", "");
            details
        };
        let status = Status::with_error_details(Code::NotFound, "?", details);
        assert_eq!(error_from_status(&status), Error::NotFound { kind: "item", name: "x".into() });
    }

    #[test]
    fn what_a_transport_says_leaves_the_outcome_open() {
        for code in [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Internal, Code::Unknown] {
            let error = error_from_status(&Status::new(code, "broken pipe"));
            assert!(matches!(error, Error::Unknown(_)), "{code:?}: {error:?}");
            assert!(error.may_have_applied());
        }
        let refused = Status::from_error(Box::new(ConnectError("connection refused".into())));
        assert!(matches!(error_from_status(&refused), Error::Unavailable { .. }));
        let newer = Status::with_error_details(
            Code::Aborted,
            "?",
            ErrorDetails::with_error_info("A_REASON_OF_THE_FUTURE", DOMAIN, HashMap::new()),
        );
        assert!(matches!(error_from_status(&newer), Error::Unknown(_)));
    }
}
