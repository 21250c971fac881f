//! The instances one by one, for a caller that chooses among them.

use tunnel_core::hello::Instance;
use tunnel_core::registry::Key;
use tunnel_core::{Open, Session};

use super::{Endpoint, Unopened};
use crate::Stream;

impl Endpoint {
    /// Waits until an instance, or its connection, has come or gone since the last call. One task at a time may wait.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// As [`Endpoint::open`], from one instance and no other.
    pub async fn open_on(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Stream, Unopened> {
        self.check(uid, open)?;
        let key = Key { uid: uid.to_owned(), instance: instance.clone() };
        let held = self.sessions.borrow().get(&key).cloned();
        let held = held.ok_or_else(|| Unopened::Gone(instance.clone()))?;
        held.tunnel.open(open.clone()).await.map_err(Unopened::Agent)
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
