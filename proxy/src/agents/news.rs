//! Changes of the connected instances, from the thread of the tunnels to the control thread.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::core::backends::instances::{Changes, OfAgent};

/// Changes that the control thread has not taken yet: the latest one of each agent.
#[derive(Debug, Default)]
pub struct AgentNews {
    changes: Mutex<Changes>,
    told: Notify,
}

impl AgentNews {
    /// Reports all present instances of an agent.
    pub fn tell(&self, uid: Arc<str>, instances: OfAgent) {
        self.lock().insert(uid, instances);
        self.told.notify_one();
    }

    /// Waits for changes, and takes them. One task at a time may wait.
    pub async fn next(&self) -> Changes {
        loop {
            let changes = mem::take(&mut *self.lock());
            if !changes.is_empty() {
                return changes;
            }
            self.told.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[test]
    fn the_latest_change_of_each_agent_is_taken_once() {
        let news = AgentNews::default();
        let mut cx = Context::from_waker(Waker::noop());
        let one = || OfAgent { names: BTreeSet::from([Arc::from("one")]), detached: false };
        news.tell("a".into(), one());
        news.tell("b".into(), one());
        news.tell("a".into(), OfAgent::default());
        let expected = Changes::from([("a".into(), OfAgent::default()), ("b".into(), one())]);
        assert_eq!(pin!(news.next()).poll(&mut cx), Poll::Ready(expected));
        let mut next = pin!(news.next());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        news.tell("b".into(), OfAgent::default());
        assert_eq!(next.poll(&mut cx), Poll::Ready(Changes::from([("b".into(), OfAgent::default())])));
    }
}
