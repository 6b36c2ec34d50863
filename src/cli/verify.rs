//! `meshstore verify`: whether the directories of nodes that do not run are whole.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{
    failure::Failure,
    output::{self, Output, fields},
    recover::{hex, place, survivor_json},
};
use crate::{
    environment::Environment,
    node::recover::{self, Survivor},
};

#[derive(Args, Debug)]
#[command(
    after_help = "Reads the identity, every record of the log, and every pair of the files, against their checksums and the accounts of \
                  the state;\nchanges nothing. The index is derived from the files: each start counts it, and builds it anew on any \
                  difference.\nStop the node first: its directory is locked meanwhile. A copy does as well.\n\nExample:\n  \
                  meshstore verify .cluster/node-1 .cluster/node-2"
)]
pub(super) struct Verify {
    /// The data directory of a node that does not run
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
}

impl Verify {
    pub(super) fn run(self, json: bool) -> Result<(), Failure> {
        let environment = Environment::real();
        let mut found = Vec::new();
        for directory in self.directories {
            found.extend(recover::survey(&environment, &[directory])?.survivors);
        }
        let json_of: Vec<Value> = found.iter().map(whole_json).collect();
        let texts: Vec<String> = found.iter().map(text).collect();
        Output::new(json).answer(&Value::Array(json_of), || texts.join("\n\n"))?;
        match found.iter().filter(|survivor| survivor.damage.is_some()).count() {
            0 => Ok(()),
            damaged => Err(Failure::Failed(format!("{damaged} of {} directories are damaged", found.len()))),
        }
    }
}

fn whole_json(survivor: &Survivor) -> Value {
    survivor_json(survivor, ("whole", survivor.damage.is_none().into()))
}

fn text(survivor: &Survivor) -> String {
    let state = match &survivor.damage {
        None => "whole".into(),
        Some(damage) => format!("DAMAGED: {}", output::visible(damage)),
    };
    fields(&[
        ("directory", survivor.path.display().to_string()),
        ("node", format!("{}, of cluster {}", survivor.node, hex(survivor.cluster))),
        ("log", format!("up to {}, known to be committed up to {}", place(survivor.last), place(survivor.committed))),
        ("files", format!("up to {}, revision {}", place(survivor.flushed), survivor.revision)),
        ("state", state),
    ])
}
