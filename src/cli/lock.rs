//! `meshstore lock` and `meshstore election`: a command that runs while a lock is held.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    time::Duration,
};

use clap::{Args, Subcommand};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    failure::Failure,
    options::{Session, duration},
    output,
};
use crate::client::{Holder, LockGuard};

const ENVIRONMENT: &str = "\
COMMAND finds in its environment:
  MESHSTORE_LOCK           the name of the lock
  MESHSTORE_FENCING_TOKEN  greater than those of all who held the lock before; writes that carry it (--fence) are
                           refused as soon as the lock is lost
  MESHSTORE_LEASE          the lease that holds the lock; what is written with --lease goes with it

If the lock is lost COMMAND gets SIGTERM. Signals are passed on, and the exit code is that of COMMAND.";

/// How a lock is taken, and what runs while it is held.
#[derive(Args, Debug)]
pub(super) struct While {
    /// How long the lock stays with this process after it has vanished, like 10s: a second to 30 days
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    ttl: Duration,
    /// How long to wait for the lock; 0s: not at all (exit code 5 if others hold it)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// What runs while the lock is held
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Run a command while a lock is held: at most one at a time in the whole cluster
#[derive(Args, Debug)]
#[command(after_help = format!("{ENVIRONMENT}\n\nExamples:\n  meshstore lock nightly-report -- ./report.sh\n  meshstore lock deploy --wait 0s -- sh -c 'meshstore state put deployed v2 --fence \"$MESHSTORE_LOCK:$MESHSTORE_FENCING_TOKEN\"'"))]
pub(super) struct Lock {
    /// At most 255 bytes; elections share the names of locks
    name: String,
    #[command(flatten)]
    held: While,
}

impl Lock {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { name, held: While { ttl, wait, command } } = self;
        let lock = session.writer()?.lock(&name).with_ttl(ttl);
        let guard = if wait.is_zero() {
            lock.try_acquire()
                .await?
                .ok_or_else(|| Failure::Unmet(format!("the lock {name} is held, or waited for")))?
        } else {
            lock.acquire(wait).await?
        };
        under(guard, &command).await
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Stand for election, and run a command while elected
    #[command(after_help = format!("{ENVIRONMENT}\n\nExample:\n  meshstore election campaign scheduler host-7 --wait 1h -- ./scheduler"))]
    Campaign {
        /// At most 255 bytes; locks share the names of elections
        name: String,
        /// What all others see of the leader; at most 56 KiB
        value: String,
        #[command(flatten)]
        held: While,
    },
    /// Show who leads, or holds a lock; exit code 3 if nobody does
    #[command(after_help = "Example:\n  meshstore election leader scheduler")]
    Leader {
        /// The name
        name: String,
    },
    /// Print who leads, and each time that this changes; a line each
    #[command(
        after_help = "Examples:\n  meshstore election observe scheduler\n  meshstore election observe scheduler --lines 1 --json"
    )]
    Observe {
        /// The name
        name: String,
        /// End after so many lines
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        lines: Option<u64>,
    },
    /// Take the lead, or a place among the candidates, from the lease that has it
    #[command(after_help = "Example:\n  meshstore election resign scheduler --of 7")]
    Resign {
        /// The name
        name: String,
        /// The lease, as `election leader` shows it
        #[arg(long, value_name = "LEASE")]
        of: u64,
    },
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let out = &session.out;
        match self {
            Self::Campaign { name, value, held: While { ttl, wait, command } } => {
                let election = session.writer()?.election(&name).with_ttl(ttl);
                under(election.campaign(value, wait).await?, &command).await
            }
            Self::Leader { name } => {
                let (holder, waiting) = session.reader()?.lock(&name).show().await?;
                let mut json = object(holder.as_ref());
                if let Value::Object(members) = &mut json {
                    members.insert("waiting".into(), waiting.into());
                }
                out.answer(&json, || lines(holder.as_ref(), waiting))?;
                if holder.is_some() { Ok(()) } else { Err(Failure::Said(super::failure::NOT_FOUND)) }
            }
            Self::Observe { name, lines } => {
                let mut observer = session.reader()?.election(&name).observe();
                let mut left = lines;
                while left != Some(0) {
                    let holder = observer.next().await?;
                    out.answer(&object(holder.as_ref()), || line(holder.as_ref()))?;
                    left = left.map(|left| left - 1);
                }
                Ok(())
            }
            Self::Resign { name, of } => out.written(session.writer()?.election(&name).resign(of).await?),
        }
    }
}

fn object(holder: Option<&Holder>) -> Value {
    let Some(Holder { token, lease, principal, value, since_ms }) = holder else { return json!({ "token": null }) };
    let mut object = serde_json::Map::new();
    object.insert("token".into(), (*token).into());
    object.insert("lease".into(), (*lease).into());
    object.insert("principal".into(), principal.as_str().into());
    object.insert("held_at_ms".into(), (*since_ms).into());
    output::put_bytes(&mut object, "value", value);
    Value::Object(object)
}

fn lines(holder: Option<&Holder>, waiting: u64) -> String {
    let Some(Holder { token, lease, principal, value, since_ms }) = holder else {
        return format!("nobody ({waiting} waiting)");
    };
    output::fields(&[
        ("value", output::shown(value)),
        ("token", token.to_string()),
        ("lease", lease.to_string()),
        ("by", output::visible(principal).into_owned()),
        ("since", output::time(*since_ms)),
        ("waiting", waiting.to_string()),
    ])
}

fn line(holder: Option<&Holder>) -> String {
    match holder {
        None => "nobody".into(),
        Some(Holder { token, value, .. }) => format!("token {token}: {}", output::cell(&output::shown(value))),
    }
}

/// Runs a command while a lock is held.
async fn under(guard: LockGuard, command: &[OsString]) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Err(Failure::usage("there is no COMMAND")) };
    let mut child = std::process::Command::new(program);
    child.args(arguments).env("MESHSTORE_LOCK", &guard.fence().lock);
    child.env("MESHSTORE_FENCING_TOKEN", guard.token().to_string()).env("MESHSTORE_LEASE", guard.lease().to_string());
    let ended = match child.spawn() {
        Ok(child) => accompany(child, &guard).await,
        Err(error) => Err(Failure::usage(format!("cannot run {}: {error}", program.display()))),
    };
    // Whatever became of it: others are waiting.
    let released = guard.release().await;
    let status = ended?;
    match status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()) {
        0 => Ok(released?),
        code => Err(Failure::Said(u8::try_from(code).unwrap_or(1))),
    }
}

/// Waits for the end of a process, which is told if the lock is lost, and what this one is told.
async fn accompany(mut child: Child, guard: &LockGuard) -> Result<ExitStatus, Failure> {
    let pid = Pid::from_child(&child);
    let tell = |signal: Signal| {
        // It may have ended just now; its number is not another's, since nobody has waited for it yet.
        let _ = kill_process(pid, signal);
    };
    let mut ended = tokio::task::spawn_blocking(move || {
        // It is left to be waited for: until then its number stays its own.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    });
    let typed = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    let lost = guard.lost();
    tokio::pin!(lost);
    let mut is_lost = false;
    loop {
        tokio::select! {
            ended = &mut ended => {
                ended.map_err(|error| Failure::Failed(error.to_string()))?.map_err(std::io::Error::from)?;
                return Ok(child.wait()?);
            }
            () = &mut lost, if !is_lost => {
                is_lost = true;
                eprint("the lock is lost: the command is told to end");
                tell(Signal::TERM);
            }
            _ = terminate.recv() => tell(Signal::TERM),
            _ = hang_up.recv() => tell(Signal::HUP),
            // What is typed at a terminal reaches the command by itself.
            _ = interrupt.recv() => if !typed { tell(Signal::INT) },
            _ = quit.recv() => if !typed { tell(Signal::QUIT) },
        }
    }
}

fn eprint(message: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}
