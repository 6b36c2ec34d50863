//! What the leader does by itself: it finishes what was begun, and makes voters of learners that have caught up.

use std::time::Duration;

use super::{
    Node,
    rules::{self, Step},
};
use crate::error::Result;

/// How often the leader looks. A real timer: that a learner has caught up, or a voter is back, nobody tells it.
const LOOK: Duration = Duration::from_millis(300);

/// Makes the membership what is wanted, as long as this node runs and whenever it leads, one change after the other. What is
/// wanted stands in the state, so nothing is kept here, and a new leader goes on.
pub(in crate::node) async fn keep(node: Node) {
    let mut refused = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let done = step(&node).await;
        let told = done.err().map(|error| error.to_string()).unwrap_or_default();
        if !told.is_empty() && told != refused {
            tracing::info!("the membership is not yet what is wanted: {told}");
        }
        refused = told;
    }
}

/// Makes one change that is left to be made.
async fn step(node: &Node) -> Result<()> {
    if node.check_leads().is_err() {
        return Ok(());
    }
    // Whoever changes it now does what it wants; there is another look after it.
    let Some(_changing) = node.try_change() else { return Ok(()) };
    let (members, records) = (node.shared.consensus.members(), node.records()?);
    let (matched, last) = node.matched();
    // One that is not possible now, since voters are missing, holds up no other: to add one may be what helps.
    let mut refused = Ok(());
    for step in rules::next_steps(&members, &records, &matched, last) {
        if let Err(error) = node.check_quorum(&members, &step).await {
            refused = Err(error);
            continue;
        }
        if step == Step::Remove(node.id()) {
            return Err(node.hand_over_to_be_removed(&members).await);
        }
        node.take(&members, &step).await?;
        tracing::info!(?step, "the membership is changed");
        return Ok(());
    }
    refused
}
