//! The instances one by one, for a caller that chooses among them.

use tunnel_core::hello::Instance;
use tunnel_core::registry::Key;
use tunnel_core::{Open, Session};

use super::{Endpoint, Held, Unopened};
use crate::{Flow, Stream, Tunnel};

impl Held {
    fn dropped_datagrams(&self) -> u64 {
        self.tunnel.look(|session| session.counters().dropped_datagrams)
    }
}

impl Endpoint {
    /// Waits until an instance, or its connection, has come or gone since the last call. One task at a time may wait.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// As [`Endpoint::open`], from one instance and no other.
    pub async fn open_on(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Stream, Unopened> {
        let tunnel = self.of_instance(uid, instance, open)?;
        tunnel.open(open.clone()).await.map_err(Unopened::Agent)
    }

    /// As [`Endpoint::open_on`], for a target of UDP.
    pub async fn open_flow_on(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Flow, Unopened> {
        let tunnel = self.of_instance(uid, instance, open)?;
        tunnel.open_flow(open.clone()).await.map_err(Unopened::Agent)
    }

    fn of_instance(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Tunnel, Unopened> {
        self.check(uid, open)?;
        let key = Key { uid: uid.to_owned(), instance: instance.clone() };
        let held = self.sessions.borrow().get(&key).cloned();
        held.map(|held| held.tunnel.clone()).ok_or_else(|| Unopened::Gone(instance.clone()))
    }

    /// Whether another instance of the agent has a connection, and takes streams and flows.
    pub fn has_another(&self, uid: &str, instance: &str) -> bool {
        let sessions = self.sessions.borrow();
        let mut others = sessions.iter().filter(|(key, _)| key.uid == uid && key.instance.as_str() != instance);
        others.any(|(_, held)| {
            let load = held.load();
            !load.detached && !load.leaving
        })
    }

    /// Datagrams that sessions have dropped because they were too many, or waited for too long; those of sessions that
    /// have ended included.
    pub fn dropped_datagrams(&self) -> u64 {
        let sessions = self.sessions.borrow();
        self.dropped.get() + sessions.values().map(|held| held.dropped_datagrams()).sum::<u64>()
    }

    /// Keeps the count of a session that is about to end.
    pub(super) fn retire(&self, held: &Held) {
        self.dropped.set(self.dropped.get() + held.dropped_datagrams());
    }

    /// Whether there is such an agent, and its list has the target.
    pub(super) fn check(&self, uid: &str, open: &Open) -> Result<(), Unopened> {
        let rules = (self.rules)(uid).ok_or_else(|| Unopened::Unknown(uid.to_owned()))?;
        rules.targets.check(&open.target).map_err(|refusal| Unopened::NotAllowed(refusal.detail))
    }

    /// Whether no stream is left, and nothing to be sent.
    pub fn is_idle(&self) -> bool {
        let is_idle = |session: &Session| session.is_empty() && !session.has_output();
        self.sessions.borrow().values().all(|held| held.tunnel.look(is_idle))
    }
}
