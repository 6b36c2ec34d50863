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
use tokio::{
    signal::unix::{Signal as UnixSignal, SignalKind, signal},
    time::Instant,
};

use super::{
    failure::Failure,
    options::{Session, duration},
    output,
};
use crate::client::{self, Holder, LockGuard};

const ENVIRONMENT: &str = "\
COMMAND finds in its environment:
  MESHSTORE_LOCK           the name of the lock
  MESHSTORE_FENCING_TOKEN  greater than those of all who held the lock before; writes that carry it (--fence) are
                           refused as soon as the lock is lost
  MESHSTORE_LEASE          the lease that holds the lock; what is written with --lease goes with it

If the lock is lost COMMAND gets SIGTERM, and SIGKILL after --grace; the exit code is then 5, whatever COMMAND says.
Otherwise signals are passed on, and the exit code is that of COMMAND.";

/// How a lock is taken, and what runs while it is held.
#[derive(Args, Debug)]
pub(super) struct While {
    /// How long the lock stays with this process after it has vanished, like 10s: a second to 30 days
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    ttl: Duration,
    /// How long to wait for the lock; 0s: not at all (exit code 5 if others hold it)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
    /// How long COMMAND may take to end when the lock is lost, before it is killed
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
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
        let Self { name, held } = self;
        let lock = session.writer()?.lock(&name).with_ttl(held.ttl);
        held.run(lock, &format!("the lock {name}")).await
    }
}

impl While {
    /// Takes the lock and runs the command.
    async fn run(self, lock: client::Lock, what: &str) -> Result<(), Failure> {
        // From here on no signal ends this process before it has let go of the lock, or of its place.
        let mut signals = Signals::listen()?;
        let guard = if self.wait.is_zero() {
            let guard = lock.try_acquire().await?;
            guard.ok_or_else(|| Failure::Unmet(format!("{what} is held, or waited for")))?
        } else {
            let mut told = None;
            let given_up = async { told = Some(signals.next().await) };
            match lock.acquire_unless(self.wait, given_up).await? {
                Some(guard) => guard,
                None => return Err(Failure::Said(told.map_or(1, exit_code_of))),
            }
        };
        under(guard, (what, &self.command), self.grace, signals).await
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
            Self::Campaign { name, value, held } => {
                let candidate = session.writer()?.election(&name).with_ttl(held.ttl).candidate(value);
                held.run(candidate, &format!("the election {name}")).await
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
async fn under(
    guard: LockGuard,
    (what, command): (&str, &[OsString]),
    grace: Duration,
    signals: Signals,
) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Err(Failure::usage("there is no COMMAND")) };
    let mut child = std::process::Command::new(program);
    child.args(arguments).env("MESHSTORE_LOCK", &guard.fence().lock);
    child.env("MESHSTORE_FENCING_TOKEN", guard.token().to_string()).env("MESHSTORE_LEASE", guard.lease().to_string());
    let ended = match child.spawn() {
        Ok(child) => accompany(child, &guard, grace, signals).await,
        Err(error) => Err(Failure::usage(format!("cannot run {}: {error}", program.display()))),
    };
    let was_lost = guard.is_lost();
    // Whatever became of it: others are waiting.
    let released = guard.release().await;
    let status = ended?;
    if was_lost {
        return Err(Failure::Unmet(format!("{what} was lost while the command ran")));
    }
    match status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()) {
        0 => Ok(released?),
        code => Err(Failure::Said(u8::try_from(code).unwrap_or(1))),
    }
}

/// Waits for the end of a process, which is told if the lock is lost, and what this one is told.
async fn accompany(
    mut child: Child,
    guard: &LockGuard,
    grace: Duration,
    mut signals: Signals,
) -> Result<ExitStatus, Failure> {
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
    let lost = guard.lost();
    tokio::pin!(lost);
    let mut kill_at = None;
    loop {
        let killing = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut ended => {
                ended.map_err(|error| Failure::Failed(error.to_string()))?.map_err(std::io::Error::from)?;
                return Ok(child.wait()?);
            }
            () = &mut lost, if kill_at.is_none() => {
                kill_at = Some(Instant::now() + grace);
                eprint("the lock is lost: the command is told to end");
                tell(Signal::TERM);
            }
            () = killing => {
                eprint("the command has not ended: it is killed");
                tell(Signal::KILL);
                kill_at = Some(Instant::now() + grace.max(Duration::from_secs(1)));
            }
            // What is typed at a terminal reaches the command by itself.
            signal = signals.next() => if !typed || !matches!(signal, Signal::INT | Signal::QUIT) { tell(signal) },
        }
    }
}

/// The signals by which this process may be told to end.
struct Signals {
    terminate: UnixSignal,
    hang_up: UnixSignal,
    interrupt: UnixSignal,
    quit: UnixSignal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next of them.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hang_up.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
        }
    }
}

/// The exit code of a process that a signal has ended, as shells tell it.
fn exit_code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

fn eprint(message: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}
