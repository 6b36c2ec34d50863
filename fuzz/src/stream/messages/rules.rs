//! Rules of what is kept, and the sweeps that delete the rest: what they delete nobody misses, and they find rest.

use super::*;

/// Steps in which a sweep has done what there is to do in so small a store.
const SWEEP_STEPS: usize = 500;

impl Case {
    pub(super) fn set(&mut self, input: &mut Input<'_>) {
        let mailbox = mailbox(input);
        let retention = Retention {
            max_age_ms: [None, Some(1_000), Some(2_000), Some(u64::MAX), Some(999)][input.below(5)],
            max_count: [None, Some(1), Some(2), Some(u64::MAX), Some(0)][input.below(5)],
        };
        assert_eq!(Retention::from(sent(&v1::Retention::from(retention))), retention);
        match retention::set(&mailbox, retention).and_then(|write| self.done(write)) {
            Ok(_) => drop(self.rules.insert(mailbox, retention)),
            Err(error) => refused(&error),
        }
        self.rules_are_so();
    }

    pub(super) fn unset(&mut self, input: &mut Input<'_>) {
        let mailbox = mailbox(input);
        match retention::delete(&mailbox).and_then(|write| self.done(write)) {
            Ok(_) => drop(self.rules.remove(&mailbox).expect("there was a rule")),
            Err(error) => {
                assert!(!self.rules.contains_key(&mailbox));
                refused(&error);
            }
        }
        self.rules_are_so();
    }

    pub(super) fn rules_are_so(&self) {
        let view = self.replica.view();
        let (mut found, mut page) = (Vec::new(), PageRequest { limit: 2, cursor: String::new() });
        loop {
            let listed = retention::list(&page).and_then(|list| list.read(&view)).expect("a page");
            let header = read_header(ReadStamp { revision: listed.revision, age_ms: 2 }, 3);
            let answer = sent(&v1::ListRetentionResponse::from((header, listed.clone())));
            assert_eq!(Page::<(String, Stored<Retention>)>::try_from(answer).as_ref(), Ok(&listed));
            found.extend(listed.items.into_iter().map(|(mailbox, stored)| (mailbox, stored.value)));
            page.cursor = listed.next_cursor;
            if page.cursor.is_empty() {
                break;
            }
        }
        assert_eq!(found, self.rules.clone().into_iter().collect::<Vec<_>>());
        for mailbox in BOXES.iter().chain(&[""]) {
            let own = retention::get(&view, mailbox).map(|(_, stored)| stored.value);
            assert_eq!(own.ok(), self.rules.get(*mailbox).copied());
        }
    }

    pub(super) fn count(&self, scope: ScopeId) -> u64 {
        self.replica.meta().scopes.get(&scope).map_or(0, |scope| scope.account.count)
    }

    /// The next step of one of the two.
    pub(super) fn next(&mut self, reclaim: bool) -> Step {
        let (replica, meta) = (&self.replica, self.replica.meta());
        let account = |id| meta.scopes.get(&id).map(|scope| scope.account).unwrap_or_default();
        let sight = Sight { view: &|| Ok(replica.view()), wall_ms: replica.wall_ms, account: &account };
        let step = if reclaim { self.reclaim.step(&sight) } else { self.trim.step(&sight) };
        step.expect("what is stored can be read")
    }

    pub(super) fn sweep(&mut self, input: &mut Input<'_>, reclaim: bool) {
        for _ in 0..1 + input.below(4) {
            let Step::Propose(guards, transaction) = self.next(reclaim) else { continue };
            // Somebody may be faster.
            match input.byte() {
                0..=191 => {}
                192..=223 => self.delete(input),
                224..=239 => self.store(input),
                240..=247 => self.finish(input),
                248..=251 => self.set(input),
                _ => self.unset(input),
            }
            self.swept(reclaim, guards, transaction);
        }
    }

    /// Does what a sweep wants: whether it was done.
    pub(super) fn swept(&mut self, reclaim: bool, guards: Vec<Compare>, transaction: Transaction) -> bool {
        assert!(
            !transaction.then.is_empty() && transaction.then.iter().all(|op| matches!(op, Operation::Delete { .. }))
        );
        let before = self.stands();
        let (outcome, commits) = self.replica.propose(guards, Action::Transact(transaction));
        match outcome {
            Outcome::Applied { succeeded: true, .. } => {}
            Outcome::Raced => {
                assert_eq!(self.stands(), before);
                if reclaim {
                    self.reclaim.begin_anew()
                } else {
                    self.trim.begin_anew()
                }
                return false;
            }
            other => panic!("what a sweep wants was refused: {other:?}"),
        }
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            let Change::Record { key, new: None, .. } = change else { panic!("a sweep only deletes: {change:?}") };
            match key.scope().keyspace {
                keyspace::MESSAGES => self.trimmed(reclaim, str::from_utf8(&key.user_bytes()).expect("text")),
                keyspace::UPLOADS | keyspace::MESSAGE_CHUNKS => assert!(reclaim),
                other => panic!("a sweep deletes what is not its own: {other}"),
            }
        }
        self.all_whole();
        true
    }

    /// A message was deleted by a rule.
    pub(super) fn trimmed(&mut self, reclaim: bool, id: &str) {
        let kept = self.messages.remove(id).expect("a message that was there");
        assert!(!reclaim, "{id:?} was taken for garbage");
        let rule = self.rule(&kept.message.to).expect("there is a rule");
        // That was so when its mailbox was looked at.
        let aged = is_aged(rule, &kept, self.latest_ms);
        let too_many = rule.max_count.is_some_and(|count| kept.newer >= count);
        assert!(aged || too_many, "no rule says that {id:?} goes");
    }

    pub(super) fn rule(&self, mailbox: &str) -> Option<Retention> {
        self.rules.get(mailbox).or_else(|| self.rules.get("")).copied()
    }

    /// Lets a sweep do all that there is to do; `anew`: it holds nothing of before.
    pub(super) fn rest(&mut self, reclaim: bool, mut anew: bool) {
        let mut rests = 0;
        for _ in 0..SWEEP_STEPS {
            match self.next(reclaim) {
                Step::Next => {}
                Step::Rest(ms) => {
                    assert!(ms > 0);
                    rests += 1;
                    if rests == 2 {
                        return;
                    }
                }
                Step::Propose(guards, transaction) => {
                    rests = 0;
                    // What was begun before others changed it may be raced, and is begun anew then.
                    let done = self.swept(reclaim, guards, transaction);
                    assert!(done || !(reclaim || anew), "nobody else was there");
                    anew = anew || !done;
                }
            }
        }
        panic!("the sweep finds no rest");
    }

    /// The messages that the rules keep now.
    pub(super) fn to_be_kept(&self) -> BTreeSet<String> {
        let mut mailboxes: BTreeMap<&str, Vec<&Kept>> = BTreeMap::new();
        for kept in self.messages.values() {
            mailboxes.entry(&kept.message.to).or_default().push(kept);
        }
        let mut ids = BTreeSet::new();
        for (mailbox, mut messages) in mailboxes {
            let rule = self.rule(mailbox).unwrap_or_default();
            messages.retain(|kept| !is_aged(rule, kept, self.replica.wall_ms));
            messages.sort_by_key(|kept| kept.place());
            let most = rule.max_count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
            ids.extend(messages.iter().rev().take(most).map(|kept| kept.message.id.clone()));
        }
        ids
    }
}

fn is_aged(rule: Retention, kept: &Kept, wall_ms: u64) -> bool {
    rule.max_age_ms.is_some_and(|age_ms| kept.stored_ms.saturating_add(age_ms) <= wall_ms)
}

fn mailbox(input: &mut Input<'_>) -> String {
    match input.byte() {
        255 => "t".repeat(256),
        choice => BOXES.get(usize::from(choice) % (BOXES.len() + 1)).copied().unwrap_or_default().into(),
    }
}
