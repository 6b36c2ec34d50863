//! Changes that go unless they are confirmed, and the way back.
//!
//! A change that waits for a confirmation leaves the record `pending`, which expires in log time; so the time is the
//! cluster's own, and goes on where it was when the leader has died. When the record is gone and the head still names the
//! change, whoever leads proposes the way back ([`overdue`]).

use super::{
    draft::{Draft, Head, Stand, pending_key, put_head},
    history,
};
use crate::{
    Error, Result,
    layers::Write,
    model::{
        topology::{Cause, Note, Pending},
        transaction::{Compare, Operation},
    },
    state::View,
};

/// How long a confirmation may take at most, in milliseconds: a day.
pub const CONFIRM_MAX_MS: u64 = 86_400_000;
/// And at least.
pub const CONFIRM_MIN_MS: u64 = 1_000;

/// That a time to confirm is one. Errors: `InvalidArgument`.
pub fn check_time(confirm_ms: u64) -> Result<()> {
    if (CONFIRM_MIN_MS..=CONFIRM_MAX_MS).contains(&confirm_ms) {
        return Ok(());
    }
    let rule = format!("must be from {CONFIRM_MIN_MS} to {CONFIRM_MAX_MS} ms");
    Err(Error::invalid("confirm_within_ms", confirm_ms.to_string(), rule))
}

/// The change that waits, and its revision.
pub fn pending(view: &View) -> Result<Option<(u64, Pending)>> {
    let stand = Stand::read(view)?;
    Ok(stand.head.pending.map(|pending| (stand.revision, pending)))
}

/// Confirms the change at `revision` (0: whichever waits). Errors: `Refused` if none waits, if it is another one, or if it
/// is too late.
pub fn confirm(view: &View, revision: u64, note: Note) -> Result<Write> {
    let stand = Stand::read(view)?;
    let late = |of: u64| format!("the change at revision {of} was not confirmed in time");
    let Some(_) = &stand.head.pending else {
        return Err(Error::Refused(match (revision, history::fate(view, revision)?) {
            (0, _) => "no change of the topology waits to be confirmed".into(),
            (_, Some((at, Cause::Confirm(_)))) => {
                format!("the change at revision {revision} was confirmed at revision {at}")
            }
            (_, Some((at, _))) => format!("{}, and was rolled back at revision {at}", late(revision)),
            (_, None) => format!("the change at revision {revision} does not wait to be confirmed"),
        }));
    };
    if revision != 0 && revision != stand.revision {
        let text =
            format!("the change that waits to be confirmed is the one at revision {}, not {revision}", stand.revision);
        return Err(Error::Refused(text));
    }
    if view.record(&pending_key())?.is_none() {
        return Err(Error::Refused(format!("{}, and is being rolled back", late(stand.revision))));
    }
    let mut guards = vec![stand.guard()];
    guards.push(Compare::Exists { key: pending_key(), exists: true });
    let mut operations = vec![put_head(&Head::default()), Operation::Delete { key: pending_key() }];
    operations.extend(history::entries(&note, &Cause::Confirm(stand.revision), vec![]));
    Ok(Write::guarded(guards, operations))
}

/// Makes everything as it was at a revision; `None` if it is. A change that waits is over with that, whatever the revision.
/// Errors: `InvalidArgument` for a revision that is not there yet.
pub fn rollback(view: &View, revision: u64, note: Note) -> Result<Option<Write>> {
    let mut draft = Draft::open_anyway(view)?;
    history::back_to(&mut draft, view, revision)?;
    way_back(draft, view, note, Cause::Rollback(revision))
}

/// The way back from a change that nobody has confirmed in time; `None` while there is none.
pub fn overdue(view: &View) -> Result<Option<Write>> {
    let Some((revision, pending)) = pending(view)? else { return Ok(None) };
    if view.record(&pending_key())?.is_some() {
        return Ok(None);
    }
    let mut draft = Draft::open_anyway(view)?;
    history::back_to(&mut draft, view, pending.before)?;
    let reason = format!("the change at revision {revision} was not confirmed within {} ms", pending.confirm_ms);
    way_back(draft, view, Note { author: "meshstore".into(), reason }, Cause::Unconfirmed(pending.before))
}

fn way_back(draft: Draft<'_>, view: &View, note: Note, cause: Cause) -> Result<Option<Write>> {
    let waits = draft.stand().head.pending.is_some();
    let guard = draft.stand().guard();
    let marked = view.record(&pending_key())?.is_some();
    let write = draft.finish(note.clone(), cause.clone())?;
    // Also when nothing is different, a change that waits is over.
    let mut write = match write {
        Some(write) => write,
        None if waits => {
            let mut operations = vec![put_head(&Head::default())];
            operations.extend(history::entries(&note, &cause, vec![]));
            Write::guarded(vec![guard], operations)
        }
        None => return Ok(None),
    };
    if marked {
        write.transaction.then.push(Operation::Delete { key: pending_key() });
    }
    Ok(Some(write))
}
