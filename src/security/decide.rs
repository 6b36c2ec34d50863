//! Who may do what: one pure function, asked for every call.
//!
//! Its input is the caller, what is done to which surface, and the policy; nothing is looked up here, so a decision can
//! be repeated and tested. Whoever asks for a surface that has rules of its own hands over what it read of them in the
//! view that the call works on.

use std::fmt;

use crate::model::Principal;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Shows what is stored.
    Read,
    /// Changes it.
    Write,
    /// Changes the cluster itself.
    Admin,
    /// Is for nodes among themselves.
    Peer,
}

/// What it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Messages, state, routes, configuration.
    Mesh,
    /// The definition of meshes.
    Topology,
    /// Values by key in namespaces.
    Storage,
    /// Collections of documents, which have rules of their own.
    Broker,
    /// Changes of all these, as they come.
    Watch,
    /// Leases.
    Lease,
    /// Locks, and elections.
    Lock,
    /// The consensus log.
    ConsensusLog,
    /// Sessions of clients.
    Session,
    /// Streams of calls, each of which has a surface of its own.
    Calls,
    /// The cluster.
    Cluster,
    /// What only nodes say to each other.
    Peer,
}

/// A call, as far as a decision needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What it does.
    pub access: Access,
    /// What it is done to.
    pub surface: Surface,
}

/// The rules that hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The node knows no callers: everybody may do everything.
    Open,
    /// Whoever is known may do everything.
    Known,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Decides whether `principal` may do this. Errors: it may not, with the reason.
pub fn decide(principal: &Principal, action: Action, policy: Policy) -> Result<(), Denied> {
    let Action { access, surface } = action;
    let is_node = matches!(principal, Principal::Node(_));
    match (policy, access) {
        (Policy::Open, _) => Ok(()),
        (Policy::Known, _) if !principal.is_known() => {
            Err(Denied("this node serves only callers that it knows, by a token or a certificate".into()))
        }
        (Policy::Known, Access::Peer) if !is_node => {
            Err(Denied(format!("{principal} is no node: {surface:?} is what nodes say to each other")))
        }
        (Policy::Known, Access::Read | Access::Write | Access::Admin | Access::Peer) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_callers_may_do_everything_but_speak_as_nodes() {
        let (service, person) = (Principal::Service("billing".into()), Principal::Person("ada".into()));
        for access in [Access::Read, Access::Write, Access::Admin, Access::Peer] {
            let action = Action { access, surface: Surface::Cluster };
            assert_eq!(decide(&Principal::Anonymous, action, Policy::Open), Ok(()));
            assert!(decide(&Principal::Anonymous, action, Policy::Known).is_err());
            assert_eq!(decide(&Principal::Node(1), action, Policy::Known), Ok(()));
            for client in [&service, &person] {
                assert_eq!(decide(client, action, Policy::Known).is_ok(), access != Access::Peer);
            }
        }
    }
}
