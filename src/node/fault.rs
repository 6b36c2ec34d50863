//! The first fault stops the node: everything that can break reports here, and whoever runs the node waits
//! here.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Fault;

/// Where faults are reported. Cheap to clone.
#[derive(Clone)]
pub struct Faults(Arc<watch::Sender<Option<Fault>>>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Faults {
    /// Reports a fault. Only the first counts: the others follow from it, as those of whoever comes too late follow from a stop.
    pub fn report(&self, fault: Fault) {
        if fault.is_closed() {
            return;
        }
        self.0.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            tracing::error!(%fault, "the node stops");
            *first = Some(fault);
            true
        });
    }

    /// The first fault, if there has been one.
    pub fn first(&self) -> Option<Fault> {
        self.0.borrow().clone()
    }

    /// Resolves with the first fault.
    pub async fn wait(&self) -> Fault {
        let mut watch = self.0.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(first) => first.clone().unwrap_or_else(|| Fault::bug("a fault without a reason")),
            // The sender lives in `self`.
            Err(_) => Fault::bug("the fault channel was closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_late_breaks_nothing() {
        let faults = Faults::default();
        faults.report(Fault::closed("storage"));
        assert!(faults.first().is_none());
        faults.report(Fault::new("the disk is gone"));
        faults.report(Fault::new("so nothing can be read"));
        assert_eq!(faults.first().unwrap().to_string(), "the disk is gone");
    }
}
