//! `meshstore security`: an authority in a directory, and what it gives out. No node is asked; copying files to where
//! they belong is the operator's.
//!
//! Nothing is overwritten unless `--replace` says so, and then each file is replaced as a whole, so that a node that
//! reads it again finds the old one or the new one. Keys and tokens can be read by their owner only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    failure::Failure,
    output::{Output, table},
};
use crate::{
    config::{self, Cluster},
    environment::Environment,
    model::Principal,
    security::{
        issue::{Authority, Issued},
        tokens::{Token, Tokens, date},
    },
};

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TOKENS: &str = "tokens.toml";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an authority, certificates for all nodes, and the first admin's certificate and token
    #[command(
        after_help = "DIR must be new or empty. ca.key in it signs every certificate: keep it off the nodes.\n\nExamples:\n  meshstore security init tls --config cluster.toml\n  meshstore security init tls --node 1=node-1.example,10.0.0.1 --node 2=10.0.0.2 --node 3=10.0.0.3"
    )]
    Init {
        /// Where to put everything
        dir: PathBuf,
        /// The file with the nodes, if no --node is given
        #[arg(long, env = "MESHSTORE_CONFIG", value_name = "FILE", default_value = "cluster.toml")]
        config: PathBuf,
        /// A node, with the hosts by which it is reached: names or IP addresses
        #[arg(long, value_name = "ID=HOST,...", value_parser = node)]
        node: Vec<Node>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Make one more certificate, or a new one for an old
    #[command(
        after_help = "Examples:\n  meshstore security cert tls --service billing\n  meshstore security cert tls --node 4=node-4.example,10.0.0.4\n  meshstore security cert tls --node 1=node-1.example,10.0.0.1 --replace"
    )]
    Cert {
        /// The authority's directory
        dir: PathBuf,
        /// For a node, with the hosts by which it is reached
        #[arg(long, value_name = "ID=HOST,...", value_parser = node, conflicts_with_all = ["service", "person"])]
        node: Option<Node>,
        #[command(flatten)]
        client: Client,
        #[command(flatten)]
        lasts: Lasts,
        /// Put it where an older one is
        #[arg(long)]
        replace: bool,
    },
    /// Tokens, for clients without certificates
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown once, and kept nowhere
    #[command(after_help = "Example:\n  meshstore security token add tls --service billing --days 90 > billing.token")]
    Add {
        /// The directory of tokens.toml
        dir: PathBuf,
        #[command(flatten)]
        client: Client,
        /// How many days it holds; without it until it is revoked
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// Show all tokens, without their secrets
    #[command(after_help = "Example:\n  meshstore security token list tls")]
    List {
        /// The directory of tokens.toml
        dir: PathBuf,
    },
    /// Let a token hold no longer
    #[command(after_help = "Example:\n  meshstore security token revoke tls 3fa94c10")]
    Revoke {
        /// The directory of tokens.toml
        dir: PathBuf,
        /// The token's id, as `list` shows it; also the part of the token between the underscores
        id: String,
    },
}

/// Who it is for.
#[derive(Args, Debug)]
pub(super) struct Client {
    /// For a program of this name
    #[arg(long, value_name = "NAME", conflicts_with = "person")]
    service: Option<String>,
    /// For a human being of this name
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Lasts {
    /// How many days a certificate holds
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
}

/// A node, and the hosts by which it is reached.
#[derive(Clone, Debug)]
pub(super) struct Node {
    id: u64,
    hosts: Vec<String>,
}

fn node(text: &str) -> Result<Node, String> {
    let shape = "write it like 1=node-1.example,10.0.0.1";
    let (id, hosts) = text.split_once('=').ok_or(shape)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or(shape)?;
    let host = |host: &str| {
        // The configuration knows what a host is; it has a port there.
        let bracketed = if host.contains(':') { format!("[{host}]:1") } else { format!("{host}:1") };
        let address: Result<config::Address, _> = bracketed.parse();
        address.map(|address| address.host().to_owned()).map_err(|_| format!("\"{host}\" is no host; {shape}"))
    };
    Ok(Node { id, hosts: hosts.split(',').map(host).collect::<Result<_, _>>()? })
}

impl Client {
    fn principal(&self) -> Result<Option<Principal>, Failure> {
        let text = match (&self.service, &self.person) {
            (Some(name), _) => format!("service/{name}"),
            (None, Some(name)) => format!("person/{name}"),
            (None, None) => return Ok(None),
        };
        text.parse().map(Some).map_err(Failure::usage)
    }

    fn required(&self) -> Result<Principal, Failure> {
        self.principal()?.ok_or_else(|| Failure::usage("for whom? Pass --service NAME or --person NAME"))
    }
}

impl Command {
    pub(super) fn run(self, json: bool) -> Result<(), Failure> {
        let out = Output::new(json);
        let now_ms = Environment::real().clock.wall_ms();
        match self {
            Self::Init { dir, config, node, lasts } => init(&out, &dir, &config, node, lasts, now_ms),
            Self::Cert { dir, node, client, lasts, replace } => {
                let authority = Authority::open(&text(&dir.join(CA_CERT))?, &text(&dir.join(CA_KEY))?);
                let authority = authority.map_err(|rule| Failure::Failed(format!("{}: {rule}", dir.display())))?;
                let lasts = lasts.days * DAY;
                let (name, issued) = match (node, client.principal()?) {
                    (Some(Node { id, hosts }), _) => (format!("node-{id}"), authority.node(id, &hosts, now_ms, lasts)),
                    (None, Some(principal)) => (file_name(&principal), authority.client(&principal, now_ms, lasts)),
                    (None, None) => {
                        return Err(Failure::usage("for whom? Pass --node, --service or --person"));
                    }
                };
                let issued = issued.map_err(Failure::Failed)?;
                let files = pair(&dir, &name, &issued);
                write_all(&files, replace)?;
                let names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
                out.answer(&json!({ "files": names }), || format!("wrote {}", names.join(" and ")))
            }
            Self::Token(command) => command.run(&out, now_ms),
        }
    }
}

/// A file to be written.
struct File<'a> {
    path: PathBuf,
    content: &'a str,
    mode: u32,
}

fn pair<'a>(dir: &Path, name: &str, issued: &'a Issued) -> [File<'a>; 2] {
    // The key first: until its certificate follows a node keeps what it had.
    [
        File { path: dir.join(format!("{name}.key")), content: &issued.key, mode: 0o600 },
        File { path: dir.join(format!("{name}.crt")), content: &issued.cert, mode: 0o644 },
    ]
}

/// A name for the files of a client; those of nodes are `node-ID`, and no client's begin so.
fn file_name(principal: &Principal) -> String {
    principal.to_string().replace('/', "-")
}

fn init(out: &Output, dir: &Path, config: &Path, nodes: Vec<Node>, lasts: Lasts, now_ms: u64) -> Result<(), Failure> {
    let nodes = if nodes.is_empty() { nodes_of(&Cluster::load(config)?) } else { nodes };
    let mut ids: Vec<u64> = nodes.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    let twice = ids.iter().zip(ids.iter().skip(1)).find(|(one, next)| one == next);
    if let Some((id, _)) = twice {
        return Err(Failure::usage(format!("node {id} is given twice: write its hosts behind each other")));
    }
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            let rule = format!("{} is not empty; nothing was written. An authority is made once", dir.display());
            return Err(Failure::Failed(rule));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| unwritable(dir, &error))?;
        }
        Err(error) => return Err(unwritable(dir, &error)),
    }
    let failed = Failure::Failed;
    let (authority, ca) = Authority::found("meshstore", now_ms).map_err(failed)?;
    let admin = Principal::Person("admin".into());
    let mut tokens = Tokens::default();
    let token = format!("{}\n", tokens.add(admin.clone(), now_ms, None).map_err(failed)?);
    let list = tokens.text();
    let lasts = lasts.days * DAY;
    let mut issued = Vec::new();
    for Node { id, hosts } in &nodes {
        issued.push((format!("node-{id}"), authority.node(*id, hosts, now_ms, lasts).map_err(failed)?));
    }
    issued.push(("admin".into(), authority.client(&admin, now_ms, lasts).map_err(failed)?));
    let mut files = vec![
        File { path: dir.join(CA_KEY), content: &ca.key, mode: 0o600 },
        File { path: dir.join(CA_CERT), content: &ca.cert, mode: 0o644 },
        File { path: dir.join(TOKENS), content: &list, mode: 0o600 },
        File { path: dir.join("admin.token"), content: &token, mode: 0o600 },
    ];
    files.extend(issued.iter().flat_map(|(name, issued)| pair(dir, name, issued)));
    write_all(&files, false)?;
    let names: Vec<_> = files.iter().map(|file| file.path.display().to_string()).collect();
    out.answer(&json!({ "files": names, "nodes": ids }), || next_steps(dir, &ids))
}

fn nodes_of(cluster: &Cluster) -> Vec<Node> {
    let hosts = |node: &config::Node| {
        let mut hosts: Vec<String> = [&node.client, &node.peer, &node.http].map(|of| of.host().to_owned()).into();
        hosts.sort();
        hosts.dedup();
        hosts
    };
    cluster.nodes.iter().map(|node| Node { id: node.id, hosts: hosts(node) }).collect()
}

fn next_steps(dir: &Path, ids: &[u64]) -> String {
    let (shown, ids) = (dir.display(), ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    format!(
        "made an authority, certificates for the nodes {ids}, and a certificate and a token for person/admin

Next:
1. Keep {shown}/ca.key where no node is: who has it can be anybody.
2. Write into cluster.toml (paths are relative to it):

   [tls]
   ca = \"{shown}/ca.crt\"
   cert = \"{shown}/node-{{node}}.crt\"
   key = \"{shown}/node-{{node}}.key\"

   [auth]
   tokens = \"{shown}/tokens.toml\"

3. Copy to each node: ca.crt, tokens.toml, and its own node-ID.crt and node-ID.key. Start the nodes.
4. Try it: meshstore --ca {shown}/ca.crt --token-file {shown}/admin.token status"
    )
}

impl TokenCommand {
    fn run(self, out: &Output, now_ms: u64) -> Result<(), Failure> {
        match self {
            Self::Add { dir, client, days } => {
                let (path, principal) = (dir.join(TOKENS), client.required()?);
                let mut tokens = read(&path)?;
                let expires_ms =
                    days.map(|days| now_ms.saturating_add(u64::try_from((days * DAY).as_millis()).unwrap_or(u64::MAX)));
                let token = tokens.add(principal.clone(), now_ms, expires_ms).map_err(Failure::Failed)?;
                write_all(&[File { path, content: &tokens.text(), mode: 0o600 }], true)?;
                out.answer(&json!({ "token": token, "principal": principal.to_string() }), || token.clone())
            }
            Self::List { dir } => {
                let tokens = read(&dir.join(TOKENS))?;
                let mut tokens: Vec<&Token> = tokens.iter().collect();
                tokens.sort_by_key(|token| (token.created_ms, &token.id));
                let items: Vec<_> = tokens.iter().map(|token| token_json(token, now_ms)).collect();
                out.answer(&json!({ "items": items }), || match tokens.is_empty() {
                    true => "none".into(),
                    false => {
                        table(&["id", "principal", "made", "ends"], tokens.iter().map(|token| token_row(token, now_ms)))
                    }
                })
            }
            Self::Revoke { dir, id } => {
                let path = dir.join(TOKENS);
                let mut tokens = read(&path)?;
                let revoked = tokens
                    .revoke(&id)
                    .ok_or_else(|| Failure::Answer(crate::Error::NotFound { kind: "token", name: id.clone() }))?;
                write_all(&[File { path, content: &tokens.text(), mode: 0o600 }], true)?;
                out.answer(&json!({ "id": id, "principal": revoked.principal.to_string() }), || {
                    format!(
                        "revoked {id} of {}: copy tokens.toml to all nodes, which read it at once",
                        revoked.principal
                    )
                })
            }
        }
    }
}

fn token_json(token: &Token, now_ms: u64) -> serde_json::Value {
    json!({
        "id": token.id, "principal": token.principal.to_string(), "created_ms": token.created_ms,
        "expires_ms": token.expires_ms, "expired": token.has_expired(now_ms),
    })
}

fn token_row(token: &Token, now_ms: u64) -> Vec<String> {
    let ends = match token.expires_ms {
        None => "when it is revoked".into(),
        Some(ms) if token.has_expired(now_ms) => format!("{} (over)", date(ms)),
        Some(ms) => date(ms),
    };
    vec![token.id.clone(), token.principal.to_string(), date(token.created_ms), ends]
}

fn read(path: &Path) -> Result<Tokens, Failure> {
    Tokens::parse(&text(path)?, path).map_err(Failure::Failed)
}

fn text(path: &Path) -> Result<String, Failure> {
    let cannot = |error: io::Error| Failure::Failed(format!("cannot read {}: {error}", path.display()));
    fs::read_to_string(path).map_err(cannot)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}

/// Writes all of these, or, if one is there already and may not be replaced, none.
fn write_all(files: &[File<'_>], replace: bool) -> Result<(), Failure> {
    if let Some(there) = files.iter().find(|file| !replace && file.path.exists()) {
        let rule = format!("{} is there already; nothing was written. --replace renews it", there.path.display());
        return Err(Failure::Failed(rule));
    }
    for File { path, content, mode } in files {
        // Beside the old one, then over it: nobody finds half a file.
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let written = || {
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&new)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        written().map_err(|error| unwritable(path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_an_id_and_hosts() {
        let parsed = node("3=Node-3.example,10.0.0.3,::1").unwrap();
        assert_eq!((parsed.id, parsed.hosts.join(" ")), (3, "node-3.example 10.0.0.3 ::1".into()));
        for wrong in ["", "3", "3=", "=a", "0=a", "x=a", "3=a,,b", "3=a b", "3=0.0.0.0", "3=a:1"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }
}
