//! Connection strings: a client's settings in one line, as they stand in an environment variable or a configuration file.
//!
//! `meshstore://HOST[:PORT][,HOST[:PORT]...][/][?PARAMETER=VALUE[&...]]`; a host without a port means
//! [`PORT`]. Parameters: `read` (`linearizable`, `stale`, `at_least`), `max_age` (with `read=stale`), `revision` (with
//! `read=at_least`), `deadline`, `session_ttl`, `exactly_once` (`true`, `false`), `connections`, `streaming` (`true`,
//! `false`). Times are like `500ms`, `5s`, `2m`, `1h`. What is unknown, given twice or does not belong together is refused.

use std::{collections::BTreeMap, time::Duration};

use super::Builder;
use crate::{Error, Result, model::ReadMode};

/// How a connection string begins.
pub const SCHEME: &str = "meshstore://";
/// Where a node listens for clients if nothing else is said.
pub const PORT: u16 = 7401;

/// How old a stale read may be if nothing is said.
const MAX_AGE: Duration = Duration::from_secs(5);

impl Builder {
    /// The settings of a connection string, such as `meshstore://10.0.0.1,10.0.0.2:7402/?read=stale&max_age=5s`.
    ///
    /// ```
    /// use meshstore::client::Builder;
    ///
    /// assert!(Builder::parse("meshstore://node-1,node-2:7402/?read=stale&max_age=5s&deadline=2s").is_ok());
    /// let error = Builder::parse("meshstore://node-1/?raed=stale").map(drop).unwrap_err();
    /// assert!(error.to_string().contains("raed"));
    /// ```
    ///
    /// Errors: `InvalidArgument` naming the parameter.
    pub fn parse(text: &str) -> Result<Self> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| {
            Error::invalid(
                "connection string",
                text,
                format!("must begin with {SCHEME}, like {SCHEME}host1,host2/?read=stale"),
            )
        })?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = place.strip_suffix('/').unwrap_or(place);
        let endpoints = hosts.split(',').map(endpoint).collect::<Result<Vec<_>>>()?;
        let mut parameters = Parameters::of(query)?;
        let mut builder = Self::default().endpoints(endpoints);
        if let Some(mode) = parameters.read_mode()? {
            builder = builder.read_mode(mode);
        }
        if let Some(deadline) = parameters.time("deadline")? {
            builder = builder.deadline(deadline);
        }
        if let Some(ttl) = parameters.time("session_ttl")? {
            builder = builder.session_ttl(ttl);
        }
        if let Some(exactly_once) = parameters.parsed("exactly_once", "must be true or false")? {
            builder = builder.exactly_once(exactly_once);
        }
        if let Some(connections) = parameters.parsed("connections", "must be a number")? {
            builder = builder.connections(connections);
        }
        if let Some(streaming) = parameters.parsed("streaming", "must be true or false")? {
            builder = builder.streaming(streaming);
        }
        match parameters.0.pop_first() {
            None => Ok(builder),
            Some((name, _)) => Err(unknown(name)),
        }
    }
}

/// The parameters that were not taken yet.
struct Parameters<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| Error::invalid("connection string", part, "a parameter is written NAME=VALUE"))?;
            if parameters.insert(name, value).is_some() {
                return Err(wrong(name, value, "is given twice"));
            }
        }
        Ok(Self(parameters))
    }

    fn read_mode(&mut self) -> Result<Option<ReadMode>> {
        let read = self.0.remove("read");
        let (max_age, revision) = (self.time("max_age")?, self.parsed::<u64>("revision", "must be a number")?);
        if max_age.is_some() && read != Some("stale") {
            return Err(wrong("max_age", "", "belongs to read=stale"));
        }
        if revision.is_some() && read != Some("at_least") {
            return Err(wrong("revision", "", "belongs to read=at_least"));
        }
        match read {
            None => Ok(None),
            Some("linearizable") => Ok(Some(ReadMode::Linearizable)),
            Some("stale") => Ok(Some(ReadMode::Stale(max_age.unwrap_or(MAX_AGE)))),
            Some("at_least") => match revision {
                Some(revision) => Ok(Some(ReadMode::AtLeast(revision))),
                None => Err(wrong("read", "at_least", "wants revision=REVISION beside it")),
            },
            Some(other) => Err(wrong("read", other, "must be linearizable, stale or at_least")),
        }
    }

    fn time(&mut self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        time(text).map(Some).ok_or_else(|| wrong(name, text, "must be a time like 500ms, 5s, 2m or 1h"))
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, rule: &str) -> Result<Option<T>> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, text, rule))
    }
}

/// `10s`, `500ms`, `2m`, `1h`.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(ms_each).map(Duration::from_millis)
}

/// `host:port` of a host that may have none. An IPv6 address stands in brackets.
fn endpoint(host: &str) -> Result<String> {
    if host.is_empty() {
        return Err(Error::invalid("connection string", "", "names an empty host"));
    }
    let behind_address = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    Ok(if behind_address.contains(':') { host.to_owned() } else { format!("{host}:{PORT}") })
}

fn wrong(name: &str, value: &str, rule: &str) -> Error {
    Error::invalid(format!("connection parameter {name}"), value, rule)
}

fn unknown(name: &str) -> Error {
    let known = "there is none of this name; there are read, max_age, revision, deadline, session_ttl, exactly_once, \
                 connections, streaming";
    wrong(name, "", known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Builder::parse(text).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn hosts_have_a_port_or_the_usual_one() {
        assert_eq!(endpoint("node-1").unwrap(), "node-1:7401");
        assert_eq!(endpoint("node-1:7402").unwrap(), "node-1:7402");
        assert_eq!(endpoint("[::1]").unwrap(), "[::1]:7401");
        assert_eq!(endpoint("[::1]:7402").unwrap(), "[::1]:7402");
        for text in ["meshstore://a", "meshstore://a/", "meshstore://a,b:1/?", "meshstore://a?read=linearizable"] {
            assert!(Builder::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("postgres://a/", "must begin with meshstore://"),
            ("meshstore:///", "empty host"),
            ("meshstore://a,,b/", "empty host"),
            ("meshstore://a/?raed=stale", "raed"),
            ("meshstore://a/?read=fresh", "linearizable, stale or at_least"),
            ("meshstore://a/?read=at_least", "revision=REVISION"),
            ("meshstore://a/?max_age=5s", "belongs to read=stale"),
            ("meshstore://a/?read=stale&revision=5", "belongs to read=at_least"),
            ("meshstore://a/?read=stale&max_age=5", "a time like"),
            ("meshstore://a/?deadline", "NAME=VALUE"),
            ("meshstore://a/?deadline=1s&deadline=2s", "given twice"),
            ("meshstore://a/?exactly_once=yes", "true or false"),
            ("meshstore://a/?connections=-1", "must be a number"),
        ] {
            assert!(refused(text).contains(part), "{text}: {}", refused(text));
        }
    }
}
