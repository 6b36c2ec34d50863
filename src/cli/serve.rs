//! `meshstore serve`.

use std::{
    env,
    io::{self, IsTerminal},
    os::unix::process::CommandExt,
    path::PathBuf,
    process,
    time::Duration,
};

use clap::{Args, builder::BoolishValueParser};
use tracing_subscriber::EnvFilter;

use super::{failure::Failure, options::duration};
use crate::config::{Config, Engine, Flags, Log};

#[derive(Args, Debug)]
#[command(
    after_help = "The node runs until SIGINT or SIGTERM, then stops cleanly. Log lines go to standard error.\n\nExamples:\n  meshstore serve --config cluster.toml --node 1 --data data/1\n  MESHSTORE_NODE=2 MESHSTORE_DATA=/var/lib/meshstore meshstore serve\n  meshstore serve --node 3 --data data/3 --log-level info,meshstore=debug\n  meshstore serve --node 4 --data data/4 --join 127.0.0.1:7501 --peer 127.0.0.1:7504 --client 127.0.0.1:7404 \\\n    --http 127.0.0.1:7604"
)]
pub(super) struct Serve {
    /// The file that describes the cluster; the same for all nodes
    #[arg(long, env = "MESHSTORE_CONFIG", value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
    /// Which node of the file to be; may be left out if it has only one
    #[arg(long, env = "MESHSTORE_NODE", value_name = "ID")]
    node: Option<u64>,
    /// Where the data lies; this node's alone [default: data_dir of the file]
    #[arg(long, env = "MESHSTORE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another engine than the file's: sled or memory
    #[arg(long, env = "MESHSTORE_ENGINE", value_name = "ENGINE")]
    engine: Option<Engine>,
    /// Listen in plain text on addresses that other machines can reach; without [tls] these may do everything then
    #[arg(long, env = "MESHSTORE_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    /// What to log: error, warn, info, debug, trace, or directives like info,meshstore=debug [default: info,openraft=error]
    #[arg(long, env = "MESHSTORE_LOG", value_name = "FILTER")]
    log_level: Option<String>,
    /// Log one JSON object a line
    #[arg(long)]
    log_json: bool,
    /// Log each call that takes this long or longer, like 200ms or 1s
    #[arg(long, env = "MESHSTORE_SLOW_CALL", value_name = "TIME", default_value = "1s", value_parser = duration)]
    slow_call: Duration,
    /// Ask these members, by their peer addresses, to let this new node join their cluster; of no effect once it has
    #[arg(long, env = "MESHSTORE_JOIN", value_name = "HOST:PORT,...", value_delimiter = ',')]
    join: Vec<String>,
    /// With --join: stay a learner, which has all data and no vote
    #[arg(long)]
    learner: bool,
    /// Where to listen for the other nodes, if the file does not say
    #[arg(long, env = "MESHSTORE_PEER", value_name = "HOST:PORT")]
    peer: Option<String>,
    /// Where to listen for clients, if the file does not say
    #[arg(long, env = "MESHSTORE_CLIENT", value_name = "HOST:PORT")]
    client: Option<String>,
    /// Where to answer health checks and metrics, if the file does not say
    #[arg(long, env = "MESHSTORE_HTTP", value_name = "HOST:PORT")]
    http: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let flags = Flags {
            node: self.node,
            data_dir: self.data,
            engine: self.engine,
            insecure: self.insecure,
            log_filter: self.log_level,
            log_json: self.log_json,
            slow_call: Some(self.slow_call),
            join: self.join,
            learner: self.learner,
            peer: self.peer,
            client: self.client,
            http: self.http,
        };
        let config = Config::load(&self.config, &flags)?;
        start_log(&config.log)?;
        match crate::server::run(config) {
            Err(fault) if fault.asks_for_rebuild() => Err(start_again()),
            ended => Ok(ended?),
        }
    }
}

/// Replaces this process by one that does the same from the beginning, under the same id. Why it could not.
fn start_again() -> Failure {
    tracing::warn!("starting again");
    let cannot = |error: io::Error| Failure::Failed(format!("the node cannot start itself again: {error}"));
    match env::current_exe() {
        Ok(program) => cannot(process::Command::new(program).args(env::args_os().skip(1)).exec()),
        Err(error) => cannot(error),
    }
}

fn start_log(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(&log.filter).map_err(|error| Failure::usage(error.to_string()))?;
    // Colours are for people, not for files; NO_COLOR is theirs to say (no-color.org).
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    let started = if log.json { subscriber.json().try_init() } else { subscriber.try_init() };
    started.map_err(|error| Failure::Failed(format!("cannot start the log: {error}")))
}
