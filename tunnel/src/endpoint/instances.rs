//! Access to single instances, for a caller that chooses among them.

use std::collections::BTreeSet;
use std::time::Duration;

use tunnel_core::hello::Instance;
use tunnel_core::registry::{Key, Known};
use tunnel_core::{Open, Session};

use super::{Endpoint, Held, Unopened, View};
use crate::{Flow, Stream, Tunnel};

/// A name that sorts before every other name of an instance.
const FIRST: &str = "0";

impl Held {
    fn dropped_datagrams(&self) -> u64 {
        self.tunnel.look(|session| session.counters().dropped_datagrams)
    }
}

impl Endpoint {
    /// Waits until an instance or its connection has come or gone since the last call. Returns the uids of the agents
    /// concerned. One task at a time may wait.
    pub async fn changed(&self) -> BTreeSet<String> {
        loop {
            self.changed.notified().await;
            let touched = self.touched.take();
            if !touched.is_empty() {
                return touched;
            }
        }
    }

    /// Records that an instance of this agent, or its connection, has come or gone.
    pub(super) fn touch(&self, uid: &str) {
        self.touched.borrow_mut().insert(uid.to_owned());
        self.changed.notify_one();
    }

    /// The instances that have a session, for status.
    pub fn agents(&self) -> Vec<View> {
        let (registry, sessions) = (self.registry.borrow(), self.sessions.borrow());
        let now = self.start.elapsed();
        let all = registry.instances().iter();
        all.filter_map(|(key, known)| Some(view(key, known, sessions.get(key)?, now))).collect()
    }

    /// Like [`Endpoint::agents`], for one agent. The cost does not depend on the number of other agents.
    pub fn instances_of(&self, uid: &str) -> Vec<View> {
        let Ok(instance) = Instance::new(FIRST) else { return Vec::new() };
        let (registry, sessions) = (self.registry.borrow(), self.sessions.borrow());
        let now = self.start.elapsed();
        let from = registry.instances().range(Key { uid: uid.to_owned(), instance }..);
        let own = from.take_while(|(key, _)| key.uid == uid);
        own.filter_map(|(key, known)| Some(view(key, known, sessions.get(key)?, now))).collect()
    }

    /// Like [`Endpoint::open`], from this instance only.
    pub async fn open_on(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Stream, Unopened> {
        let tunnel = self.of_instance(uid, instance, open)?;
        tunnel.open(open.clone()).await.map_err(Unopened::Agent)
    }

    /// Like [`Endpoint::open_on`], for a UDP target and without waiting: datagrams may be sent at once, and
    /// [`Flow::answered`] waits for the answer.
    pub fn begin_flow_on(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Flow, Unopened> {
        let tunnel = self.of_instance(uid, instance, open)?;
        tunnel.begin_flow(open.clone()).map_err(Unopened::Agent)
    }

    fn of_instance(&self, uid: &str, instance: &Instance, open: &Open) -> Result<Tunnel, Unopened> {
        self.check(uid, open)?;
        let key = Key { uid: uid.to_owned(), instance: instance.clone() };
        let held = self.sessions.borrow().get(&key).cloned();
        held.map(|held| held.tunnel.clone()).ok_or_else(|| Unopened::Gone(instance.clone()))
    }

    /// Whether another instance of the agent has a connection and takes streams and flows.
    pub fn has_another(&self, uid: &str, instance: &str) -> bool {
        let sessions = self.sessions.borrow();
        let mut others = sessions.iter().filter(|(key, _)| key.uid == uid && key.instance.as_str() != instance);
        others.any(|(_, held)| {
            let load = held.load();
            !load.detached && !load.leaving
        })
    }

    /// Datagrams that sessions, including ended ones, have dropped because too many waited or waited for too long.
    pub fn dropped_datagrams(&self) -> u64 {
        let sessions = self.sessions.borrow();
        self.dropped.get() + sessions.values().map(|held| held.dropped_datagrams()).sum::<u64>()
    }

    /// Adds the counter of a session that is about to end.
    pub(super) fn retire(&self, held: &Held) {
        self.dropped.set(self.dropped.get() + held.dropped_datagrams());
    }

    /// Checks that the agent exists and that its allow list contains the target.
    pub(super) fn check(&self, uid: &str, open: &Open) -> Result<(), Unopened> {
        let rules = (self.rules)(uid).ok_or_else(|| Unopened::Unknown(uid.to_owned()))?;
        rules.targets.check(&open.target).map_err(|refusal| Unopened::NotAllowed(refusal.detail))
    }

    /// Whether no stream is left, and nothing to send.
    pub fn is_idle(&self) -> bool {
        let is_idle = |session: &Session| session.is_empty() && !session.has_output();
        self.sessions.borrow().values().all(|held| held.tunnel.look(is_idle))
    }
}

fn view(key: &Key, known: &Known, held: &Held, now: Duration) -> View {
    let load = held.load();
    View {
        identity: known.identity.clone(),
        instance: key.instance.to_string(),
        program: known.program.clone(),
        age: now.saturating_sub(known.since),
        attached: !load.detached,
        leaving: load.leaving,
        streams: load.streams,
        round_trip: held.tunnel.look(Session::round_trip),
    }
}
