//! What all members know: the cluster's *feature level*.
//!
//! A log entry holds records that a layer made. A program that does not know a kind of record takes it for damage, so while nodes
//! are upgraded one after the other nobody may write what only the new ones can read. Each level has a record in the state,
//! written by the leader once every member has said that it knows the level; before something is proposed that needs a level,
//! that record must stand there ([`Node::require`]). A level is never taken back: a program that knows less can neither join nor
//! start on such data.
//!
//! **Why on demand**: a level is raised when it is first needed, not as soon as it could be. So a cluster that uses nothing new
//! can go back to the program that it came from.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Node, Wish, record};
use crate::{
    error::{Error, Fault, Result},
    model::{
        Key, ScopeId,
        features::{self, brought},
        keyspace,
        transaction::{Compare, Relation, ScopeField},
    },
    node::OWN,
    proto::v1::IdentifyResponse,
    raft::types::NodeId,
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::FEATURES, keyspace::NO_SCOPE);

/// That a level was reached. Frozen (kind `FeatureLevel`, version 1).
#[derive(Serialize, Deserialize)]
struct Reached {
    /// The version of the program of the leader that wrote this.
    by_version: String,
}

fn key(level: u32) -> Key {
    SCOPE.key(&level.to_be_bytes())
}

/// The level that a state has reached.
fn level_of(view: &View) -> Result<u32> {
    let reached = view.records(SCOPE, &[], None, usize::from(u8::MAX))?;
    let Some((last, _)) = reached.last() else { return Ok(1) };
    let bytes = <[u8; 4]>::try_from(last.user_bytes().as_ref());
    bytes.map(u32::from_be_bytes).map_err(|_| view.fault(Fault::damage(format!("{last} is no key of a feature level"))))
}

/// What a program says that is older than the data. `known`: the level that it knows.
fn check_known(level: u32, known: u32) -> Result<(), Fault> {
    if level <= known {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the cluster has reached feature level {level}, and this program (meshstore {}) knows level {known}: run the \
         version here that the other nodes run",
        env!("CARGO_PKG_VERSION")
    )))
}

/// What a member knows, by its answer.
fn known(answer: &IdentifyResponse) -> u32 {
    answer.feature_level.max(1)
}

/// What keeps a level from being reached, of these answers of members; `None`: nothing. Errors: some did not answer.
fn behind<'a>(
    level: u32,
    answers: impl Iterator<Item = (&'a NodeId, &'a Result<IdentifyResponse, String>)>,
) -> Result<Option<String>, String> {
    let (mut older, mut silent) = (Vec::new(), Vec::new());
    for (id, answer) in answers {
        match answer {
            Ok(answer) if known(answer) < level => {
                older.push(format!("node {id} runs meshstore {} (level {})", answer.version, known(answer)));
            }
            Ok(_) => {}
            Err(problem) => silent.push(format!("node {id} {problem}")),
        }
    }
    match (older.is_empty(), silent.is_empty()) {
        (false, _) => Ok(Some(older.join(", "))),
        (true, false) => Err(silent.join(", ")),
        (true, true) => Ok(None),
    }
}

impl Node {
    /// The level that the cluster has reached, as far as it was applied here.
    pub(in crate::node) fn feature_level(&self) -> Result<u32> {
        level_of(&self.view(None, None)?)
    }

    /// That this program knows what the data here may hold.
    pub(in crate::node) fn check_known_features(&self) -> Result<(), Fault> {
        let level =
            self.feature_level().map_err(|error| Fault::new(format!("the feature level cannot be read: {error}")))?;
        check_known(level, features::LEVEL)
    }

    /// Sees to it that every member knows a level, before something is proposed that needs it.
    ///
    /// Errors: `Refused` with the members that do not; `Unavailable` while it is not known of all of them.
    pub async fn require(&self, level: u32, deadline: Instant) -> Result<()> {
        let seen = &self.shared.membership.level;
        if seen.load(Ordering::Relaxed) >= level {
            return Ok(());
        }
        let reached = self.feature_level()?;
        seen.fetch_max(reached, Ordering::Relaxed);
        if reached >= level {
            return Ok(());
        }
        self.check_leads()?;
        let _changing = self.begin_change(deadline).await?;
        self.check_leads()?;
        let view = self.view(None, None)?;
        if level_of(&view)? >= level {
            return Ok(());
        }
        // Those, too, who are to become members.
        let wanted = self.records()?.into_iter().filter(|(_, found)| found.record.wish != Wish::Removed);
        let mut others: BTreeMap<_, _> = wanted.map(|(id, found)| (id, found.record.member)).collect();
        others.extend(self.settled()?.all);
        others.remove(&self.id());
        let answers = self.ask_members(&others).await;
        match behind(level, answers.iter()) {
            Ok(None) => self.reach(level, view.revision()).await,
            Ok(Some(older)) => Err(Error::Refused(format!(
                "{} cannot be used before every member knows feature level {level}: {older}; upgrade it, or remove it",
                brought(level)
            ))),
            Err(silent) => {
                let brought = brought(level);
                let reason =
                    format!("whether every member knows feature level {level} ({brought}) is not known: {silent}");
                Err(Error::Unavailable { reason, leader: None })
            }
        }
    }

    /// Writes down that a level is reached, if nobody was admitted since a revision.
    async fn reach(&self, level: u32, since: u64) -> Result<()> {
        let unchanged = Compare::Scope {
            scope: record::SCOPE,
            field: ScopeField::LastRevision,
            relation: Relation::LessOrEqual,
            to: since,
        };
        let reached = Reached { by_version: env!("CARGO_PKG_VERSION").into() };
        let value = codec::encode(Kind::FeatureLevel, &reached);
        if self.put_if(unchanged, key(level), value, OWN.into()).await?.is_none() {
            let reason = "who belongs to the cluster has just changed".into();
            return Err(Error::Unavailable { reason, leader: None });
        }
        tracing::info!(level, brought = brought(level), "every member knows a new feature level");
        Ok(())
    }

    /// That a newcomer knows what the cluster may already have written. Errors: `Refused`.
    pub(super) fn check_features(&self, node: NodeId, answer: &IdentifyResponse) -> Result<()> {
        let level = self.feature_level()?;
        if known(answer) >= level {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "node {node} runs meshstore {} (feature level {}), and the cluster has reached level {level}: run a newer version \
             there",
            answer.version,
            known(answer)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: &str, feature_level: u32) -> Result<IdentifyResponse, String> {
        Ok(IdentifyResponse { version: version.into(), feature_level, ..IdentifyResponse::default() })
    }

    #[test]
    fn who_knows_less_is_named() {
        let silent = || Err::<IdentifyResponse, _>("does not answer".to_owned());
        let told = |answers: &[(NodeId, Result<IdentifyResponse, String>)]| {
            behind(2, answers.iter().map(|(id, answer)| (id, answer)))
        };
        assert_eq!(told(&[]), Ok(None));
        assert_eq!(told(&[(2, answer("0.2.0", 2)), (3, answer("0.3.0", 3))]), Ok(None));
        let older = "node 2 runs meshstore 0.1.0 (level 1), node 4 runs meshstore  (level 1)".to_owned();
        assert_eq!(told(&[(2, answer("0.1.0", 1)), (3, silent()), (4, answer("", 0))]), Ok(Some(older)));
        assert_eq!(told(&[(2, silent()), (3, answer("0.2.0", 2))]), Err("node 2 does not answer".into()));
    }

    #[test]
    fn data_of_a_higher_level_is_refused() {
        assert!(check_known(2, 2).is_ok() && check_known(1, 2).is_ok());
        let said = check_known(3, 2).unwrap_err().to_string();
        assert!(said.contains("feature level 3") && said.contains("knows level 2"), "{said}");
    }

    #[test]
    fn a_level_has_exactly_these_bytes() {
        assert_eq!(key(258).as_bytes().as_ref(), [0x31, 0, 0, 0, 0, 0, 0, 1, 2]);
        let sealed = codec::encode(Kind::FeatureLevel, &Reached { by_version: "0.1".into() });
        assert_eq!(sealed[..9], [0x4D, 0x53, 41, 1, 0, 4, 0, 0, 0]);
        assert_eq!(sealed[13..], [3, b'0', b'.', b'1']);
    }
}
