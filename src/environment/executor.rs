//! Background work as step functions: the log writer, the flusher, the merger and compaction each are a
//! [`Worker`] that does one bounded step at a time and says when it wants the next. In production each
//! worker has a thread, in the simulation a task, both running [`drive`], so the same seed gives the same
//! order of steps.

use std::{sync::Arc, thread, time::Duration};

use tokio::sync::{Notify, oneshot};

use crate::error::Fault;

/// When a worker wants its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// At once: there is more to do.
    Again,
    /// When its signal is raised.
    Wait,
    /// When its signal is raised, or after this time.
    WaitFor(Duration),
    /// Never: it has finished.
    Done,
}

/// Background work. A fault ends the worker and stops the node.
pub trait Worker: Send + 'static {
    /// Does one bounded piece of work. May block on files; must not block on other workers.
    fn step(&mut self) -> Result<Step, Fault>;
}

/// Wakes a worker. Cheap to clone; a raise while the worker runs is not lost.
#[derive(Clone, Default)]
pub struct Signal(Arc<Notify>);

impl Signal {
    /// Asks for a step.
    pub fn raise(&self) {
        self.0.notify_one();
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        self.0.notified().await;
    }
}

/// Runs workers.
pub trait Executor: Send + Sync + 'static {
    /// Starts a worker; the answer comes when it is done or has a fault.
    fn start(&self, name: &'static str, worker: Box<dyn Worker>, signal: Signal) -> Running;
}

/// A started worker: resolves to how it ended. `None` if it was torn down with its runtime (or panicked).
pub type Running = oneshot::Receiver<Result<(), Fault>>;

/// Steps a worker until it is done.
pub async fn drive(mut worker: Box<dyn Worker>, signal: Signal) -> Result<(), Fault> {
    loop {
        match worker.step()? {
            Step::Again => tokio::task::yield_now().await,
            Step::Wait => signal.raised().await,
            // A worker that waits for time or its signal does not care which of them came.
            Step::WaitFor(time) => drop(tokio::time::timeout(time, signal.raised()).await),
            Step::Done => return Ok(()),
        }
    }
}

/// A thread for each worker.
#[derive(Default)]
pub struct Threads {}

impl Executor for Threads {
    fn start(&self, name: &'static str, worker: Box<dyn Worker>, signal: Signal) -> Running {
        let (sender, running) = oneshot::channel();
        let body = move || {
            let ended = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime.block_on(drive(worker, signal)),
                Err(error) => Err(Fault::new(format!("cannot start the {name} thread: {error}"))),
            };
            // Nobody listens any more if the node is already gone.
            let _ = sender.send(ended);
        };
        // If the thread cannot start, the sender is dropped with the closure, which the owner sees.
        drop(thread::Builder::new().name(name.into()).spawn(body));
        running
    }
}

/// A task of the current runtime for each worker: the simulation's.
#[derive(Default)]
pub struct Tasks {}

impl Executor for Tasks {
    fn start(&self, _name: &'static str, worker: Box<dyn Worker>, signal: Signal) -> Running {
        let (sender, running) = oneshot::channel();
        tokio::spawn(async move {
            // Nobody listens any more if the node is already gone.
            let _ = sender.send(drive(worker, signal).await);
        });
        running
    }
}

/// Runs blocking work as a worker of its own, and waits for what it makes: a thread in production, a task in the
/// simulation. Errors: its fault, or that it panicked.
pub async fn run_blocking<T: Send + 'static>(
    executor: &dyn Executor,
    name: &'static str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (sender, made) = oneshot::channel();
    let once = Once { work: Some((work, sender)) };
    let running = executor.start(name, Box::new(once), Signal::default());
    match made.await {
        Ok(made) => Ok(made),
        Err(_) => match running.await {
            Ok(Err(fault)) => Err(fault),
            _ => Err(Fault::new(format!("the {name} thread ended unexpectedly (see the log for a panic)"))),
        },
    }
}

struct Once<W, T> {
    work: Option<(W, oneshot::Sender<T>)>,
}

impl<T: Send + 'static, W: FnOnce() -> Result<T, Fault> + Send + 'static> Worker for Once<W, T> {
    fn step(&mut self) -> Result<Step, Fault> {
        if let Some((work, sender)) = self.work.take() {
            // Who no longer waits does not need it.
            let _ = sender.send(work()?);
        }
        Ok(Step::Done)
    }
}
