//! `meshstore backup`: all that a cluster holds as of one revision, in one file.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    options::Session,
    output::{Output, fields, table},
    whole_file::WholeFile,
};
use crate::{
    client::Backup,
    environment::Environment,
    model::keyspace,
    node::backup::{self, Contents},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write all that the cluster holds, as of one revision, into a file
    #[command(
        after_help = "Any node can make it; writes go on meanwhile. With the default read mode everything is in it that was acknowledged \
                      before.\nThe file has its name only once it is whole, checked and on the disk.\n\nExamples:\n  \
                      meshstore backup create monday.backup\n  meshstore --endpoints 10.0.0.3:7401 --read stale:10s backup create monday.backup"
    )]
    Create {
        /// The file, which must not exist
        file: PathBuf,
    },
    /// Read a backup wholly, check it, and say what is in it
    #[command(after_help = "Needs no cluster.\n\nExample:\n  meshstore backup inspect monday.backup")]
    Inspect {
        /// The file
        file: PathBuf,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create { file } => create(session, &file).await,
            Self::Inspect { file } => show(&session.out, &file),
        }
    }
}

async fn create(session: &Session, file: &Path) -> Result<(), Failure> {
    let mut out = WholeFile::begin(file, "a backup")?;
    let mut backup = session.reader()?.cluster().backup().await?;
    receive(&mut backup, &mut out).await?;
    let contents = out.end(look)?;
    answer(&session.out, file, &contents)
}

async fn receive(backup: &mut Backup, out: &mut WholeFile) -> Result<(), Failure> {
    let bar = ProgressBar::new(backup.about_bytes());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of about {total_bytes}, {bytes_per_sec}") {
        bar.set_style(style);
    }
    while let Some(bytes) = backup.next().await? {
        out.write_all(&bytes)?;
        bar.inc(bytes.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

type Inspected = (Contents, u64, u64);

fn look(file: &Path) -> Result<Inspected, Failure> {
    Ok(backup::inspect(&Environment::real(), file)?)
}

fn show(out: &Output, file: &Path) -> Result<(), Failure> {
    answer(out, file, &look(file)?)
}

fn answer(out: &Output, file: &Path, (contents, pairs, bytes): &Inspected) -> Result<(), Failure> {
    let Contents { cluster, position, revision, log_time_ms, state_hash, members, sessions, keyspaces } = contents;
    let json = json!({
        "file": file, "bytes": bytes, "cluster_id": format!("{cluster:032x}"), "revision": revision,
        "position": { "term": position.term, "index": position.index }, "log_time_ms": log_time_ms,
        "state_hash": format!("{state_hash:032x}"), "sessions": sessions, "pairs": pairs,
        "members": members.iter().map(|(id, peer, client, voter)| {
            json!({ "node_id": id, "peer_address": peer, "client_address": client, "voter": voter })
        }).collect::<Vec<Value>>(),
        "keyspaces": keyspaces.iter().map(|(number, records, bytes)| {
            json!({ "name": keyspace::label(*number), "records": records, "bytes": bytes })
        }).collect::<Vec<Value>>(),
    });
    out.answer(&json, || {
        let ids: Vec<String> = members.iter().map(|(id, ..)| id.to_string()).collect();
        let summary = fields(&[
            ("file", format!("{}, {bytes} bytes, whole", file.display())),
            ("cluster", format!("{cluster:032x}, nodes {}", ids.join(", "))),
            ("revision", format!("{revision}, log entry {position}")),
            ("state hash", format!("{state_hash:032x}")),
            ("sessions", sessions.to_string()),
        ]);
        let rows = keyspaces
            .iter()
            .map(|(number, records, bytes)| vec![keyspace::label(*number), records.to_string(), bytes.to_string()]);
        match keyspaces.is_empty() {
            true => summary,
            false => format!("{summary}\n\n{}", table(&["keyspace", "records", "bytes"], rows)),
        }
    })
}
