//! `cluster.toml`: its format, and the rules that it must keep. Every broken rule names its line.

use std::{collections::BTreeMap, fmt::Display, ops::Range, path::Path, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Address, Cluster, Engine, Invalid, Limits, Node, Raft, Storage, Tls,
    tls::{self, AuthTable, TlsTable},
};
use crate::limits;

/// What the file says, and where in it the addresses of the nodes stand.
pub(super) struct Checked {
    pub(super) cluster: Cluster,
    pub(super) tls: Option<Tls>,
    pub(super) lines: AddressSpans,
}

/// Byte ranges of the addresses in the text.
pub(super) type AddressSpans = BTreeMap<Address, Range<usize>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: ClusterTable,
    #[serde(default)]
    storage: StorageTable,
    #[serde(default)]
    raft: RaftTable,
    #[serde(default)]
    limits: LimitsTable,
    tls: Option<TlsTable>,
    auth: Option<AuthTable>,
    #[serde(default)]
    node: Vec<Spanned<NodeTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterTable {
    name: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorageTable {
    engine: Option<Spanned<String>>,
    cache_mib: Option<Spanned<u64>>,
    flush_mib: Option<Spanned<u64>>,
    flush_after_s: Option<Spanned<u64>>,
    reserve_mib: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RaftTable {
    heartbeat_ms: Option<Spanned<u64>>,
    election_min_ms: Option<Spanned<u64>>,
    election_max_ms: Option<Spanned<u64>>,
    keep_entries: Option<Spanned<u64>>,
    segment_mib: Option<Spanned<u64>>,
    check_entries: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    calls_per_principal: Option<Spanned<u64>>,
    watch_mib: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    id: Spanned<u64>,
    client: Spanned<String>,
    peer: Spanned<String>,
    http: Spanned<String>,
    data_dir: Option<Spanned<String>>,
}

/// The text of one file, for messages.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    pub(super) fn invalid(&self, at: &Range<usize>, rule: impl Into<String>) -> Invalid {
        Invalid::at(self.path, Some(self.line(at.start)), rule)
    }

    /// A number of the file, or its default; in any case within its range.
    fn number(
        &self,
        name: &str,
        given: Option<&Spanned<u64>>,
        default: u64,
        allowed: Range<u64>,
    ) -> Result<u64, Invalid> {
        let Some(given) = given else { return Ok(default) };
        let value = *given.get_ref();
        if allowed.contains(&value) {
            return Ok(value);
        }
        let rule = format!("{name} must be from {} to {} (given: {value})", allowed.start, allowed.end - 1);
        Err(self.invalid(&given.span(), rule))
    }
}

/// Reads and checks the text of a file.
pub(super) fn read(text: &str, path: &Path) -> Result<Checked, Invalid> {
    let source = Source { text, path };
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| source.line(span.start));
        Invalid::at(path, line, error.message())
    })?;
    let name = file.cluster.name.get_ref();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(
            source.invalid(&file.cluster.name.span(), "the cluster's name must have 1 to 64 printable characters")
        );
    }
    let storage = storage(&source, &file.storage)?;
    let raft = raft(&source, &file.raft)?;
    let limits = limits(&source, &file.limits)?;
    let (nodes, lines) = nodes(&source, &file.node)?;
    let tls = tls::read(&source, file.tls.as_ref(), file.auth.as_ref(), nodes.len())?;
    Ok(Checked { cluster: Cluster { name: name.clone(), storage, raft, limits, nodes }, tls, lines })
}

fn storage(source: &Source<'_>, table: &StorageTable) -> Result<Storage, Invalid> {
    let engine = match &table.engine {
        None => Engine::default(),
        Some(name) => name.get_ref().parse().map_err(|rule: String| source.invalid(&name.span(), rule))?,
    };
    let cache_mib = source.number("cache_mib", table.cache_mib.as_ref(), 16, 1..1_048_577)?;
    let flush_mib = source.number("flush_mib", table.flush_mib.as_ref(), 64, 1..16_385)?;
    let flush_after_s = source.number("flush_after_s", table.flush_after_s.as_ref(), 30, 1..86_401)?;
    let reserve_mib = source.number("reserve_mib", table.reserve_mib.as_ref(), 256, 16..1_048_577)?;
    Ok(Storage {
        engine,
        cache_bytes: cache_mib << 20,
        flush_bytes: flush_mib << 20,
        flush_after: Duration::from_secs(flush_after_s),
        reserve_bytes: reserve_mib << 20,
    })
}

fn limits(source: &Source<'_>, table: &LimitsTable) -> Result<Limits, Invalid> {
    let default = limits::CALLS_PER_PRINCIPAL as u64;
    let calls = source.number("calls_per_principal", table.calls_per_principal.as_ref(), default, 1..1_000_001)?;
    let watch_mib = source.number("watch_mib", table.watch_mib.as_ref(), 64, 1..16_385)?;
    let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Limits { calls_per_principal: size(calls), watch_bytes: size(watch_mib << 20) })
}

fn raft(source: &Source<'_>, table: &RaftTable) -> Result<Raft, Invalid> {
    let heartbeat = source.number("heartbeat_ms", table.heartbeat_ms.as_ref(), 100, 10..10_001)?;
    let min = source.number("election_min_ms", table.election_min_ms.as_ref(), 300, 20..60_001)?;
    let max = source.number("election_max_ms", table.election_max_ms.as_ref(), 500, 20..120_001)?;
    // Of the values that a rule relates, the line of the first one that the file names is shown.
    let blame = |fields: [&Option<Spanned<u64>>; 2], rule: String| {
        let at = fields.into_iter().flatten().next().map(Spanned::span);
        Invalid::at(source.path, at.map(|at| source.line(at.start)), rule)
    };
    if min <= 2 * heartbeat {
        let rule = format!(
            "election_min_ms ({min}) must be more than twice heartbeat_ms ({heartbeat}), else one lost heartbeat deposes a leader"
        );
        return Err(blame([&table.election_min_ms, &table.heartbeat_ms], rule));
    }
    if max <= min {
        let rule = format!(
            "election_max_ms ({max}) must be more than election_min_ms ({min}): nodes draw their patience from between the two"
        );
        return Err(blame([&table.election_max_ms, &table.election_min_ms], rule));
    }
    let keep_entries = source.number("keep_entries", table.keep_entries.as_ref(), 50_000, 0..10_000_001)?;
    let segment_mib = source.number("segment_mib", table.segment_mib.as_ref(), 64, 1..1_025)?;
    let check_entries = source.number("check_entries", table.check_entries.as_ref(), 4_096, 1..1_000_001)?;
    let ms = Duration::from_millis;
    Ok(Raft {
        heartbeat: ms(heartbeat),
        election_min: ms(min),
        election_max: ms(max),
        keep_entries,
        segment_bytes: segment_mib << 20,
        check_entries,
    })
}

fn nodes(source: &Source<'_>, tables: &[Spanned<NodeTable>]) -> Result<(Vec<Node>, AddressSpans), Invalid> {
    if tables.is_empty() {
        return Err(Invalid::at(source.path, None, "there is no [[node]]; a cluster has at least one"));
    }
    let (mut ids, mut directories) = (Unique::new("node id"), Unique::new("data_dir"));
    let mut addresses = Unique::new("address");
    let mut nodes = Vec::new();
    for table in tables.iter().map(Spanned::get_ref) {
        let id = *table.id.get_ref();
        if id == 0 {
            return Err(source.invalid(&table.id.span(), "a node id must be at least 1"));
        }
        ids.insert(source, id, table.id.span())?;
        let mut address = |text: &Spanned<String>| {
            let address: Address = text.get_ref().parse().map_err(|rule: String| source.invalid(&text.span(), rule))?;
            addresses.insert(source, address.clone(), text.span())?;
            Ok(address)
        };
        let (client, peer, http) = (address(&table.client)?, address(&table.peer)?, address(&table.http)?);
        let mut data_dir = None;
        if let Some(given) = &table.data_dir {
            if given.get_ref().is_empty() {
                return Err(source.invalid(&given.span(), "data_dir must not be empty"));
            }
            // The nodes of a cluster on many machines may well use the same path.
            directories.insert(source, format!("{} on {}", given.get_ref(), client.host()), given.span())?;
            data_dir = Some(source.path.parent().unwrap_or(Path::new("")).join(given.get_ref()));
        }
        nodes.push(Node { id, client, peer, http, data_dir });
    }
    nodes.sort_by_key(|node| node.id);
    Ok((nodes, addresses.seen))
}

/// Things of which each may stand in the file only once.
struct Unique<T> {
    noun: &'static str,
    seen: BTreeMap<T, Range<usize>>,
}

impl<T: Ord + Display> Unique<T> {
    fn new(noun: &'static str) -> Self {
        Self { noun, seen: BTreeMap::new() }
    }

    fn insert(&mut self, source: &Source<'_>, thing: T, at: Range<usize>) -> Result<(), Invalid> {
        if let Some(first) = self.seen.get(&thing) {
            let rule = format!("{} {thing} stands here and in line {}", self.noun, source.line(first.start));
            return Err(source.invalid(&at, rule));
        }
        self.seen.insert(thing, at);
        Ok(())
    }
}

/// What is in plain text is not offered to other machines by accident.
pub(super) fn require_loopback(
    text: &str,
    path: &Path,
    node: &Node,
    tls: Option<&Tls>,
    spans: &AddressSpans,
) -> Result<(), Invalid> {
    let plain: &[&Address] = match tls {
        None => &[&node.client, &node.peer, &node.http],
        Some(tls) if !tls.http => &[&node.http],
        Some(_) => &[],
    };
    let Some(open) = plain.iter().find(|address| !address.is_loopback()) else { return Ok(()) };
    let line = spans.get(open).map(|span| Source { text, path }.line(span.start));
    let rule = if tls.is_none() {
        format!(
            "{open} can be reached by other machines, but node {} runs without TLS: whoever reaches it may read and \
             write everything. Set up [tls] (`meshstore security init --help`), use 127.0.0.1, or pass --insecure if \
             the network is trusted",
            node.id
        )
    } else {
        format!(
            "{open} can be reached by other machines, but health and metrics are in plain text there. Use 127.0.0.1, \
             write http = true under [tls], or pass --insecure if the network is trusted"
        )
    };
    Err(Invalid::at(path, line, rule))
}
