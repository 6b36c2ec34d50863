//! `meshstore mesh`: the definition of meshes.

mod file;
pub(super) mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    failure::Failure,
    input,
    options::{Part, Session, duration},
    output::{self, List},
};
use crate::client::topology::{Changed, Convergence, Edit, JoinPolicy, MeshChange, NodeChange, Selector, Topology};
use crate::limits;

/// How long `converged` waits at most, unless told otherwise.
const CONVERGED: &str = "10s";

/// What a change says of itself.
#[derive(Args, Debug)]
pub(super) struct By {
    /// Who makes the change
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// A node that is to be.
#[derive(Args, Debug)]
pub(super) struct NewNode {
    /// Host name or IP address of the node
    #[arg(long)]
    address: String,
    /// Its port
    #[arg(long, default_value_t = 8443)]
    port: u32,
    /// What the node is for
    #[arg(long)]
    node_description: Option<String>,
}

impl NewNode {
    fn fields(self, name: &str) -> NodeChange {
        NodeChange {
            name: Some(name.into()),
            ip_address: Some(self.address),
            port: Some(self.port),
            description: self.node_description,
            ..NodeChange::default()
        }
    }
}

fn policy(text: &str) -> Result<JoinPolicy, String> {
    let name = text.to_uppercase().replace('-', "_");
    JoinPolicy::named(&name).ok_or_else(|| "it is open, key-required or closed".into())
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Change(Change),
    #[command(flatten)]
    Look(Look),
}

#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Found a mesh with its first node
    #[command(
        after_help = "A join key is the text itself, - for standard input, or @FILE; only its hash is kept.\n\nExamples:\n  meshstore mesh seed geant amsterdam --address 10.0.0.1 --join-key @key.txt\n  meshstore mesh seed lab first --address lab-1 --join open"
    )]
    Seed {
        /// The mesh's name; no other mesh has it
        mesh: String,
        /// The first node's name; no other node of any mesh has it
        node: String,
        #[command(flatten)]
        new: NewNode,
        /// Who may join: open, key-required or closed
        #[arg(long, value_parser = policy, default_value = "key-required")]
        join: JoinPolicy,
        /// What a joining node must know
        #[arg(long, value_name = "KEY")]
        join_key: Option<String>,
        /// What the mesh is for
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        by: By,
    },
    /// Add a node to a mesh
    #[command(after_help = "Example:\n  meshstore mesh join geant paris --address 10.0.0.2 --join-key @key.txt")]
    Join {
        /// The mesh's name
        mesh: String,
        /// The node's name
        node: String,
        #[command(flatten)]
        new: NewNode,
        /// What the mesh asks of joining nodes; the text itself, - or @FILE
        #[arg(long, value_name = "KEY")]
        join_key: Option<String>,
        #[command(flatten)]
        by: By,
    },
    /// Take a node out of its mesh, with the routes from and to it
    #[command(after_help = "Example:\n  meshstore mesh leave geant paris")]
    Leave {
        /// The mesh's name
        mesh: String,
        /// The node's name
        node: String,
        #[command(flatten)]
        by: By,
    },
    /// The same, because others want it; a reason is needed
    #[command(after_help = "Example:\n  meshstore mesh evict geant paris --reason 'it babbles'")]
    Evict {
        /// The mesh's name
        mesh: String,
        /// The node's name
        node: String,
        #[command(flatten)]
        by: By,
    },
    /// Make a whole mesh what a file says, as one change
    #[command(
        after_help = "The file is YAML or JSON, as `mesh export` writes it. Nodes and routes of the mesh that it does not\nname go; fields that it does not name stay.\n\nExamples:\n  meshstore mesh apply geant.yaml --dry-run\n  meshstore mesh apply geant.yaml --confirm-within 2m && ./check && meshstore mesh confirm"
    )]
    Apply {
        /// The file; - for standard input
        file: String,
        /// Only tell what would change
        #[arg(long)]
        dry_run: bool,
        /// Roll it back unless it is confirmed within this time (1s to 24h); meanwhile other changes are refused
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "dry_run")]
        confirm_within: Option<Duration>,
        #[command(flatten)]
        by: By,
    },
    /// Confirm the change that waits for it
    #[command(after_help = "Examples:\n  meshstore mesh confirm\n  meshstore mesh confirm 1042")]
    Confirm {
        /// The revision of the change; without, whichever waits
        #[arg(default_value_t = 0, hide_default_value = true)]
        revision: u64,
        #[command(flatten)]
        by: By,
    },
    /// Make all meshes as they were at a revision, as one change
    #[command(after_help = "Example:\n  meshstore mesh rollback 1000 --dry-run")]
    Rollback {
        /// The revision
        revision: u64,
        /// Only tell what would change
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        by: By,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Look {
    /// List all meshes
    #[command(after_help = "Example:\n  meshstore mesh list")]
    List,
    /// Show a mesh with its nodes and routes
    #[command(after_help = "Examples:\n  meshstore mesh show geant\n  meshstore mesh show geant --json")]
    Show {
        /// The mesh's name
        mesh: String,
    },
    /// List the nodes of a mesh
    #[command(after_help = "Example:\n  meshstore mesh nodes geant")]
    Nodes {
        /// The mesh's name
        mesh: String,
    },
    /// Write a mesh as a file for apply, to standard output
    #[command(after_help = "Example:\n  meshstore mesh export geant > geant.json")]
    Export {
        /// The mesh's name
        mesh: String,
    },
    /// List the changes of all meshes, the oldest first
    #[command(after_help = "Examples:\n  meshstore mesh history\n  meshstore mesh history --since 1000 --all")]
    History {
        /// Only changes behind this revision
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
        since: u64,
        #[command(flatten)]
        part: Part,
    },
    /// Show what is different between two revisions
    #[command(after_help = "Examples:\n  meshstore mesh diff 1000\n  meshstore mesh diff 1000 1042")]
    Diff {
        /// The earlier revision
        from: u64,
        /// The later one; without, the present one
        #[arg(default_value_t = 0, hide_default_value = true)]
        to: u64,
    },
    /// Wait until the nodes of a mesh have applied its last change, or show who has not (exit code 4)
    #[command(
        after_help = "Examples:\n  meshstore mesh converged geant\n  meshstore mesh converged geant --within 1m --revision 1042"
    )]
    Converged {
        /// The mesh's name
        mesh: String,
        /// How long to wait
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = CONVERGED)]
        within: Duration,
        /// The revision; without, that of the last change
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        revision: u64,
    },
}

fn key(argument: Option<String>) -> Result<Option<String>, Failure> {
    let text = argument.map(|argument| input::text(&argument)).transpose()?;
    Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn writer(session: &Session, by: By) -> Result<Topology, Failure> {
    Ok(session.writer()?.topology().by(by.author, by.reason))
}

/// The ids of a mesh and of a node in it, by their names.
async fn ids(topology: &Topology, mesh: &str, node: &str) -> Result<(String, String), Failure> {
    let mesh = topology.mesh_by_name(mesh).await?.value.id;
    Ok((mesh, topology.node_by_name(node).await?.value.id))
}

/// The names of the nodes that routes lead to, where the edits themselves do not say them.
async fn names(topology: &Topology, edits: &[Edit]) -> show::Names {
    let mut names = show::Names::new();
    for id in show::unnamed(edits) {
        // One that is gone is told by its id.
        if let Ok(node) = topology.node(&id).await {
            names.insert(id, node.value.name);
        }
    }
    names
}

async fn changed(session: &Session, topology: &Topology, done: &Changed, said: &str) -> Result<(), Failure> {
    let Changed { revision, edits } = done;
    let json = json!({ "revision": revision, "edits": edits.iter().map(show::edit_json).collect::<Vec<_>>() });
    let names = names(topology, edits).await;
    session.out.answer(&json, || {
        let told = show::edits_text(edits, &names);
        if edits.is_empty() { told } else { format!("{told}\n{said}") }
    })
}

async fn planned(session: &Session, topology: &Topology, edits: &[Edit]) -> Result<(), Failure> {
    let json = json!({ "edits": edits.iter().map(show::edit_json).collect::<Vec<_>>() });
    let names = names(topology, edits).await;
    session.out.answer(&json, || show::edits_text(edits, &names))
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Change(change) => change.run(session).await,
            Self::Look(look) => look.run(session).await,
        }
    }
}

impl Change {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Seed { mesh, node, new, join, join_key, description, by } => {
                let change = MeshChange { join: Some(join), description, ..MeshChange::default() };
                let seeded = writer(session, by)?.seed_mesh(&mesh, (change, key(join_key)?), new.fields(&node)).await?;
                let (mesh_id, node_id) = seeded;
                let json = json!({ "mesh_id": mesh_id, "node_id": node_id });
                session.out.answer(&json, || format!("mesh {mesh} is {mesh_id}, its first node {node} is {node_id}"))
            }
            Self::Join { mesh, node, new, join_key, by } => {
                let topology = writer(session, by)?;
                let mesh_id = topology.mesh_by_name(&mesh).await?.value.id;
                let node_id = topology.join_mesh(&mesh_id, key(join_key)?.as_deref(), new.fields(&node)).await?;
                let json = json!({ "mesh_id": mesh_id, "node_id": node_id });
                session.out.answer(&json, || format!("node {node} of mesh {mesh} is {node_id}"))
            }
            Self::Leave { mesh, node, by } => {
                let topology = writer(session, by)?;
                let (mesh_id, node_id) = ids(&topology, &mesh, &node).await?;
                session.out.written(topology.leave_mesh(&mesh_id, &node_id).await?)
            }
            Self::Evict { mesh, node, by } => {
                let topology = writer(session, by)?;
                let (mesh_id, node_id) = ids(&topology, &mesh, &node).await?;
                session.out.written(topology.evict_node(&mesh_id, &node_id).await?)
            }
            Self::Apply { file, dry_run, confirm_within, by } => {
                let file = if file == "-" { file } else { format!("@{file}") };
                let text = input::text_up_to(&file, limits::TRANSACTION_BYTES)?;
                let (spec, join_key) = file::read(&text)?;
                let topology = writer(session, by)?;
                match confirm_within {
                    _ if dry_run => planned(session, &topology, &topology.plan(spec, join_key).await?).await,
                    None => {
                        let done = topology.apply(spec, join_key).await?;
                        changed(session, &topology, &done, &format!("applied at revision {}", done.revision)).await
                    }
                    Some(within) => {
                        let done = topology.apply_to_confirm(spec, join_key, within).await?;
                        let said = format!(
                            "applied at revision {}; rolled back unless confirmed within {within:?} (meshstore mesh confirm)",
                            done.revision
                        );
                        changed(session, &topology, &done, &said).await
                    }
                }
            }
            Self::Confirm { revision, by } => session.out.written(writer(session, by)?.confirm(revision).await?),
            Self::Rollback { revision, dry_run, by } => {
                let topology = writer(session, by)?;
                if dry_run {
                    return planned(session, &topology, &topology.plan_rollback(revision).await?).await;
                }
                let done = topology.rollback(revision).await?;
                let said = format!("as at revision {revision}, by the change at revision {}", done.revision);
                changed(session, &topology, &done, &said).await
            }
        }
    }
}

impl Look {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let (topology, out) = (session.reader()?.topology(), &session.out);
        let id_of = async |name: &str| topology.mesh_by_name(name).await.map(|mesh| mesh.value.id);
        match self {
            Self::List => {
                let meshes = topology.meshes().await?;
                let items = meshes.iter().map(|mesh| show::mesh_json(&mesh.value)).collect();
                let rows = meshes.iter().map(show::mesh_row).collect();
                out.list(&["mesh", "id", "join", "status", "updated"], List { items, rows, ..List::default() })
            }
            Self::Nodes { mesh } => {
                let nodes = topology.nodes(&id_of(&mesh).await?).await?;
                let items = nodes.iter().map(|node| show::node_json(&node.value)).collect();
                let rows = nodes.iter().map(show::node_row).collect();
                out.list(&["node", "id", "address", "status", "updated"], List { items, rows, ..List::default() })
            }
            Self::Show { mesh } => {
                let shown = topology.show(&id_of(&mesh).await?).await?;
                out.answer(&show::topology_json(&shown), || show::topology_text(&shown))
            }
            Self::Export { mesh } => out.line(&file::write(&topology.show(&id_of(&mesh).await?).await?)?),
            Self::History { since, part } => {
                let mut entries = Vec::new();
                let mut page = part.request();
                let next_cursor = loop {
                    let found = topology.history(since, page.clone()).await?;
                    entries.extend(found.items);
                    page.cursor = found.next_cursor;
                    if !part.all || page.cursor.is_empty() {
                        break page.cursor;
                    }
                };
                let items: Vec<_> = entries.iter().map(show::entry_json).collect();
                out.answer(&json!({ "items": items, "next_cursor": next_cursor }), || {
                    let names = show::names(&entries);
                    let mut text: Vec<_> = entries.iter().map(|entry| show::entry_text(entry, &names)).collect();
                    if text.is_empty() {
                        text.push("no changes".into());
                    }
                    if !next_cursor.is_empty() {
                        text.push(format!("\nmore with --cursor {next_cursor} (or all with --all)"));
                    }
                    text.join("\n")
                })
            }
            Self::Diff { from, to } => planned(session, &topology, &topology.diff(from, to).await?).await,
            Self::Converged { mesh, within, revision } => {
                let nodes = Selector { mesh_id: id_of(&mesh).await?, ..Selector::default() };
                let told = topology.wait_until_applied(nodes, revision, within).await?;
                converged(session, &told)
            }
        }
    }
}

fn converged(session: &Session, told: &Convergence) -> Result<(), Failure> {
    let Convergence { revision, converged, nodes } = told;
    let item = |node: &crate::client::topology::Applied| {
        json!({
            "node_id": node.node_id, "node_name": node.node_name, "revision": node.revision,
            "reported_at_ms": node.reported_at_ms,
        })
    };
    let items: Vec<_> = nodes.iter().map(item).collect();
    let json = json!({ "revision": revision, "converged": converged, "nodes": items });
    session.out.answer(&json, || {
        let rows = nodes.iter().map(|node| {
            let behind = if node.revision >= *revision { "" } else { "behind" };
            vec![output::cell(&node.node_name), node.revision.to_string(), behind.into()]
        });
        output::table(&["node", "applied revision", ""], rows)
    })?;
    let late = nodes.iter().filter(|node| node.revision < *revision).count();
    if *converged {
        return Ok(());
    }
    Err(Failure::Unavailable(format!("{late} of {} nodes have not applied revision {revision}", nodes.len())))
}
