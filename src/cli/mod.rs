//! The `meshstore` command: a node (`serve`), and everything that a person asks of a cluster.
//!
//! One file per command group: its arguments (the doc comments are the help texts), and what it does with
//! the [`Client`](crate::Client). What they share: `options.rs` (global flags), `input.rs` (values from
//! arguments, files and standard input), `output.rs` (the two faces of every answer: text for people, one
//! JSON value for programs), `failure.rs` (messages, hints, exit codes).
//!
//! Invariants: standard output carries answers only, standard error everything else; a closed standard
//! output ends the command quietly; the exit code says what kind of failure it was.

mod backup;
mod bench;
mod broker;
mod config;
mod doc;
mod explained;
mod failure;
mod fill;
mod input;
mod kv;
mod lease;
mod lock;
mod log;
mod member;
mod mesh;
mod message;
mod node_state;
mod options;
mod output;
mod recover;
mod route;
mod security;
mod serve;
mod state;
mod status;
mod txn;
mod verify;
mod watch;
mod whole_file;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::{
    failure::Failure,
    options::{Options, Session, Within},
    output::Output,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or the outcome is unknown
  2  wrong usage, or an invalid argument
  3  not found
  4  unavailable, or the deadline passed with certainly nothing done
  5  conflict, not permitted, a view too old, or refused by the state of the store

Environment: MESHSTORE_ENDPOINTS, MESHSTORE_CA, MESHSTORE_CERT, MESHSTORE_KEY, MESHSTORE_TOKEN_FILE,
MESHSTORE_TOKEN, MESHSTORE_TRANSACTION, and for serve MESHSTORE_CONFIG, MESHSTORE_NODE, MESHSTORE_DATA,
MESHSTORE_ENGINE, MESHSTORE_INSECURE, MESHSTORE_LOG. Flags win over them.

Examples:
  meshstore serve --config cluster.toml --node 1 --data data/1
  meshstore status
  meshstore state put greeting hello
  meshstore state get greeting
  meshstore message list --to node-2 --json";

/// A Raft-replicated store for service meshes: its nodes, and a command line for them.
#[derive(Debug, Parser)]
#[command(name = "meshstore", version, after_help = EXIT_CODES, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Serve),
    /// Show the nodes: roles, positions in the log, members, record counts
    Status(status::Status),
    /// The nodes of the cluster: add, remove, promote, move them, and have another lead
    #[command(subcommand)]
    Member(member::Command),
    /// The definition of meshes: nodes, routes, regions, and their history
    #[command(subcommand)]
    Mesh(mesh::Command),
    /// Messages between mesh nodes
    Message(Within<message::Command>),
    /// Shared state: bytes by key
    State(Within<state::Command>),
    /// The storage contract: values by key in namespaces, with attributes and older versions
    Kv(Within<kv::Command>),
    /// Documents: JSON objects in collections that services own
    Doc(doc::Doc),
    /// The data broker: collections, and what services are allowed with them
    Broker(broker::Broker),
    /// Leases: what is attached to one goes with it
    #[command(subcommand)]
    Lease(lease::Command),
    Lock(lock::Lock),
    /// Elections of a leader: stand, see who leads, watch
    #[command(subcommand)]
    Election(lock::Command),
    /// The runtime state of mesh nodes: JSON by node id
    NodeState(Within<node_state::Command>),
    /// The routing table: JSON by destination
    Route(Within<route::Command>),
    /// Runtime configuration: JSON by key
    Config(Within<config::Command>),
    /// The consensus log: the Raft log, decoded, and the logs of consensus groups
    #[command(subcommand)]
    Log(log::Command),
    /// Several changes together, from a file: all of them, if what they require is so, or none
    Txn(txn::Txn),
    /// See changes as they come, from now on, from a revision on, or with what is there first
    #[command(subcommand)]
    Watch(watch::Command),
    /// Measure the cluster
    Bench(bench::Bench),
    /// All that the cluster holds, in one file: made, and looked into
    #[command(subcommand)]
    Backup(backup::Command),
    /// Check the data directories of nodes that do not run
    Verify(verify::Verify),
    /// When disks or a majority are lost: compare, recover and free the data directories of nodes that do not run
    #[command(subcommand)]
    Recover(recover::Command),
    /// Print what makes a shell complete this command
    #[command(
        after_help = "Examples:\n  meshstore completions bash > /etc/bash_completion.d/meshstore\n  meshstore completions zsh > ~/.zfunc/_meshstore"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Certificates and tokens: by what nodes and clients know each other
    #[command(subcommand)]
    Security(security::Command),
}

impl Command {
    /// The transaction that the command is to be part of.
    fn transaction(&self) -> Option<String> {
        match self {
            Self::Message(Within { transaction, .. })
            | Self::State(Within { transaction, .. })
            | Self::Kv(Within { transaction, .. })
            | Self::NodeState(Within { transaction, .. })
            | Self::Route(Within { transaction, .. })
            | Self::Config(Within { transaction, .. }) => transaction.clone(),
            _ => None,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // Known before the rest is understood, so that a wrong command line is answered in JSON, too.
    let json = std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json");
    let parsed = Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let done = match parsed {
        Ok(cli) => run(cli),
        Err(error) if !error.use_stderr() => {
            // Help or version; nobody is left to be told if it cannot be printed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if json => Err(Failure::usage(error.to_string())),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(failure::USAGE);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { options, command } = cli;
    let command = match command {
        Command::Serve(serve) => return serve.run(),
        Command::Recover(recover) => return recover.run(options.json),
        Command::Verify(verify) => return verify.run(options.json),
        Command::Completions { shell } => return completions(shell),
        Command::Security(security) => return security.run(options.json),
        other => other,
    };
    let mut runtime = match &command {
        Command::Bench(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        let session = Session::new(options, command.transaction());
        let done = match command {
            Command::Serve(_)
            | Command::Recover(_)
            | Command::Verify(_)
            | Command::Completions { .. }
            | Command::Security(_) => Ok(()),
            Command::Backup(command) => command.run(&session).await,
            Command::Status(status) => status.run(&session).await,
            Command::Member(command) => command.run(&session).await,
            Command::Mesh(command) => command.run(&session).await,
            Command::Message(within) => within.command.run(&session).await,
            Command::State(within) => within.command.run(&session).await,
            Command::Kv(within) => within.command.run(&session).await,
            Command::Doc(doc) => doc.run(&session).await,
            Command::Broker(broker) => broker.run(&session).await,
            Command::Lease(command) => command.run(&session).await,
            Command::Lock(lock) => lock.run(&session).await,
            Command::Election(command) => command.run(&session).await,
            Command::NodeState(within) => within.command.run(&session).await,
            Command::Route(within) => within.command.run(&session).await,
            Command::Config(within) => within.command.run(&session).await,
            Command::Log(command) => command.run(&session).await,
            Command::Txn(txn) => txn.run(&session).await,
            Command::Watch(command) => command.run(&session).await,
            Command::Bench(bench) => bench.run(&session).await,
        };
        session.end().await;
        done
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meshstore", &mut script);
    Output::new(false).raw(&script)
}
