//! One watch: what a node tells a watcher, message by message.
//!
//! A watch has a position, a revision up to which everything was told, and looks from there into what the node has applied of
//! late. Nothing is made before somebody wants it, one message at a time. Until a group of changes is told it is held, and so is
//! one of many who hold the same; who reads slowly costs one message beside it, and is told when the ring has gone on without it.
//!
//! When the node stops a watch goes on to the end of what is known, says how far it has come, and ends: so it is found where it
//! was by the next node, however rarely it was told its progress.
//!
//! It may begin with what there is: parts of one view, which stays open as long as storage can keep it. It may begin at a
//! revision: then where a namespace stood *then* is found out first, from its record now, or from the first change of that
//! record since.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    Error, Result,
    layers::watch::{Lens, Part, Past},
    limits,
    model::{
        Principal, ReadMode,
        watch::{Change, Start, Told, WatchRequest},
    },
    node::{Group, Node, Watcher},
    state::View,
};

/// Groups of changes that are looked into before others get their turn.
const TURN: usize = 64;

/// What it tells now.
enum Phase {
    /// What there is, from this position on.
    Content(View, Vec<u8>),
    /// The history that is kept.
    Past(View, Past),
    /// What changes.
    Changes,
}

/// What comes next.
enum Step {
    Told(Told),
    /// Others may want the thread, too.
    Again,
    /// There is nothing.
    Wait,
}

/// A place in a group: which commit is next, and which of its changes.
struct Place {
    group: Arc<Group>,
    commit: usize,
    change: usize,
}

/// See the module's text.
pub struct Watch {
    node: Node,
    watcher: Watcher,
    lens: Lens,
    /// Told of what is broken.
    blind: View,
    phase: Phase,
    /// All up to here was told.
    position: u64,
    /// What is left of entries of the history that did not fit into a message.
    rest: VecDeque<Change>,
    /// What is being told.
    group: Option<Place>,
    started: bool,
    /// Whether its end was told because the node stops.
    ended: bool,
    every: Duration,
    next_progress: Instant,
}

impl Watch {
    /// Begins a watch for somebody.
    ///
    /// Errors: `NotFound` for a collection; `PermissionDenied`; `InvalidArgument`, also for a revision that is still to come;
    /// `NoLongerCovered`; `ResourceExhausted` if the node serves too many; those of a read.
    pub async fn open(node: &Node, principal: &Principal, request: WatchRequest, deadline: Instant) -> Result<Self> {
        let WatchRequest { target, start, mode, progress_ms, previous } = request;
        let (mut lens, mut watcher) = (Lens::open(principal, target, previous)?, node.watches().watcher()?);
        let blind = node.blind();
        let (position, phase) = match start {
            Start::Now => {
                let (view, _) = node.read(mode, None, deadline).await?;
                lens.stand(&view)?;
                (view.revision(), Phase::Changes)
            }
            Start::Current if lens.is_history() => {
                let rule = "the topology is watched as its history, which begins after revision 0";
                return Err(Error::invalid("current", "", rule));
            }
            Start::Current => {
                // Read while the first view holds it: that one ends with the call's deadline.
                let (at, _) = node.read(mode, None, deadline).await?;
                let view = node.view_of(at.revision())?;
                lens.stand(&view)?;
                (view.revision(), Phase::Content(view, Vec::new()))
            }
            Start::After(revision) => {
                let now = reach(node, revision, deadline).await?;
                if lens.is_history() {
                    (revision, Phase::Past(node.view_of(now.revision())?, Past::after(revision)))
                } else {
                    stand_at(&mut lens, &mut watcher, (revision, &now, &blind)).await?;
                    (revision, Phase::Changes)
                }
            }
        };
        lens.check(|| node.view_at_hand())?;
        watcher.follow(lens.scopes());
        if matches!(phase, Phase::Changes) {
            // So that this is the answer, and not the end of a stream that has begun.
            watcher.look(position)?;
        }
        let every = Duration::from_millis(progress_ms);
        let (node, next_progress) = (node.clone(), Instant::now() + every);
        let (rest, group, started, ended) = (VecDeque::new(), None, false, false);
        Ok(Self { node, watcher, lens, blind, phase, position, rest, group, started, ended, every, next_progress })
    }

    /// What is told next; waits for it. After an error nothing more comes.
    ///
    /// Errors: `NoLongerCovered`; `ViewTooOld` if what there is was told too slowly; `NotFound` if what is watched is gone;
    /// `PermissionDenied` if it may no longer be read; `Unavailable` if the node stops.
    pub async fn next(&mut self) -> Result<Told> {
        loop {
            match self.step()? {
                Step::Told(told) => {
                    if matches!(told, Told::Content { .. } | Told::Changes { .. }) {
                        self.lens.check(|| self.node.view_at_hand())?;
                    }
                    return Ok(told);
                }
                Step::Again => tokio::task::yield_now().await,
                Step::Wait => tokio::select! {
                    () = self.watcher.woken() => {}
                    () = tokio::time::sleep_until(self.next_progress) => {}
                },
            }
        }
    }

    fn step(&mut self) -> Result<Step> {
        self.node.check_state()?;
        if self.ended || !matches!(self.phase, Phase::Changes) {
            self.watcher.check_open()?;
        }
        if !self.started {
            self.started = true;
            return Ok(Step::Told(Told::Started { node_id: self.node.id(), revision: self.position }));
        }
        if !self.rest.is_empty() {
            return Ok(Step::Told(self.of_rest()));
        }
        match &mut self.phase {
            Phase::Content(view, from) => {
                let Part { changes, next } = self.lens.part(view, from)?;
                let (revision, last) = (view.revision(), next.is_none());
                match next {
                    Some(next) => *from = next,
                    None => self.phase = Phase::Changes,
                }
                if changes.is_empty() && !last {
                    return Ok(Step::Again);
                }
                self.watcher.told(changes.len());
                Ok(Step::Told(Told::Content { revision, records: changes, last }))
            }
            Phase::Past(view, past) => match past.next(view)? {
                Some((revision, entries)) => {
                    self.position = revision;
                    self.rest.extend(entries);
                    Ok(Step::Told(self.of_rest()))
                }
                None => {
                    self.position = view.revision();
                    self.phase = Phase::Changes;
                    Ok(Step::Again)
                }
            },
            Phase::Changes => self.changes(),
        }
    }

    fn changes(&mut self) -> Result<Step> {
        for _ in 0..TURN {
            if let Some(told) = self.of_group()? {
                return Ok(Step::Told(told));
            }
            let look = match self.watcher.look(self.position) {
                // Of a history nothing is gone.
                Err(Error::NoLongerCovered { .. }) if self.lens.is_history() => {
                    let view = self.node.view_of(self.node.view_at_hand()?.revision())?;
                    self.phase = Phase::Past(view, Past::after(self.position));
                    return Ok(Step::Again);
                }
                look => look?,
            };
            self.position = look.until;
            match look.group {
                Some(group) => {
                    let commit = group.commits().partition_point(|commit| commit.revision <= self.position);
                    self.group = Some(Place { group, commit, change: 0 });
                }
                None if !look.newest => {}
                None if self.watcher.check_open().is_err() => {
                    self.ended = true;
                    return Ok(Step::Told(self.progress()));
                }
                None if Instant::now() >= self.next_progress => return Ok(Step::Told(self.progress())),
                None => return Ok(Step::Wait),
            }
        }
        // However much is of no interest, somebody may wait for a sign.
        if Instant::now() >= self.next_progress && self.group.is_none() {
            return Ok(Step::Told(self.progress()));
        }
        Ok(Step::Again)
    }

    fn progress(&mut self) -> Told {
        self.next_progress = Instant::now() + self.every;
        Told::Progress { revision: self.position, age_ms: self.node.age_ms() }
    }

    /// The next message of the group that is being told; `None`: nothing is left of it.
    fn of_group(&mut self) -> Result<Option<Told>> {
        while let Some(Place { group, commit: at, change }) = &mut self.group {
            let Some(commit) = group.commits().get(*at) else { break };
            let (changes, next) = self.lens.changes(&self.blind, commit, *change)?;
            self.position = commit.revision;
            (*at, *change) = next.map_or((*at + 1, 0), |next| (*at, next));
            if self.lens.has_moved() {
                self.lens.check(|| self.node.view_at_hand())?;
                self.watcher.follow(self.lens.scopes());
            }
            if !changes.is_empty() {
                self.watcher.told(changes.len());
                return Ok(Some(Told::Changes { revision: self.position, changes, more: next.is_some() }));
            }
        }
        self.group = None;
        Ok(None)
    }

    /// As much of the rest of the history's entries as fits into a message.
    fn of_rest(&mut self) -> Told {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while let Some(change) = self.rest.pop_front() {
            bytes += change.bytes();
            changes.push(change);
            if bytes >= limits::PAGE_BYTES {
                break;
            }
        }
        self.watcher.told(changes.len());
        Told::Changes { revision: self.position, changes, more: !self.rest.is_empty() }
    }
}

/// A view that shows this revision or a later one. A node that has not come so far may be behind: then it is asked how far the
/// others are. Errors: `InvalidArgument` if nobody has come so far.
async fn reach(node: &Node, revision: u64, deadline: Instant) -> Result<View> {
    if node.revision() >= revision {
        return node.view_at_hand();
    }
    let (view, _) = node.read(ReadMode::Linearizable, None, deadline).await?;
    if view.revision() < revision {
        let rule = format!("must be at most {}, the present revision", view.revision());
        return Err(Error::invalid("after_revision", revision.to_string(), rule));
    }
    Ok(view)
}

/// Has a lens stand where what it shows was at a revision, by a view of a later one.
///
/// Errors: `NoLongerCovered`; `Unavailable` if the node stops.
async fn stand_at(lens: &mut Lens, watcher: &mut Watcher, (revision, now, blind): (u64, &View, &View)) -> Result<()> {
    let Some(home) = lens.home() else { return Ok(()) };
    watcher.follow(vec![home]);
    let mut position = revision;
    while position < now.revision() {
        let look = watcher.look(position)?;
        position = look.until;
        let Some(group) = look.group else {
            // What the view shows already is told in a moment.
            watcher.check_open()?;
            tokio::task::yield_now().await;
            continue;
        };
        for commit in group.commits().iter().filter(|commit| commit.revision > revision) {
            if lens.stand_before(blind, commit)? {
                return Ok(());
            }
            position = position.max(commit.revision);
        }
    }
    lens.stand(now)
}
