//! Agents in the cache.

use std::borrow::Cow;

use crds::{ForwardAgent, ForwardAgentSpec};
use proxy_api::MAX_AGENTS;

use super::{Cache, Touched};
use crate::world::{ObjectKey, agents::gateway_of, objects::Unreadable};

impl Cache {
    pub(super) fn take_agent(&mut self, key: ObjectKey, read: Result<ForwardAgent, Unreadable>, touched: &mut Touched) {
        touched.agents.insert(key.clone());
        match read {
            Ok(agent) => {
                let was_unreadable = self.unreadable_agents.remove(&key).is_some();
                let is_same = self.world.agents.get(&key).is_some_and(|old| {
                    old.spec == agent.spec
                        && old.metadata.uid == agent.metadata.uid
                        && old.metadata.generation == agent.metadata.generation
                });
                if is_same && !was_unreadable {
                    // Only the status of the agent changed.
                    self.world.agents.insert(key, agent);
                    return;
                }
                self.note_gateway(&key, touched);
                self.world.agents.insert(key.clone(), agent);
                self.note_gateway(&key, touched);
                touched.changes.agents.insert(key);
            }
            Err(found) => {
                if self.unreadable_agents.get(&key) != Some(&found) {
                    self.unreadable_agents.insert(key.clone(), found);
                    touched.changes.agents.insert(key);
                }
            }
        }
    }

    pub(super) fn lose_agent(&mut self, key: &ObjectKey, touched: &mut Touched) {
        self.unreadable_agents.remove(key);
        self.note_gateway(key, touched);
        self.world.agents.remove(key);
        touched.changes.agents.insert(key.clone());
        touched.agents.insert(key.clone());
    }

    /// Records that the agents of this agent's gateway change.
    fn note_gateway(&self, key: &ObjectKey, touched: &mut Touched) {
        let Some(gateway) = self.world.agents.get(key).and_then(|agent| gateway_of(key, agent)) else { return };
        let agents = &self.world.agents;
        let found = self.world.gateways.get(&gateway);
        let has_too_many = found.is_some_and(|found| agents.exceed_share(&gateway, found, &key.namespace));
        if has_too_many || agents.count_of(&gateway) >= MAX_AGENTS {
            touched.changes.crowded.insert(gateway.clone());
        }
        touched.changes.agents_at.insert(gateway);
    }

    /// Why an agent cannot be read; `None` if it can.
    #[must_use]
    pub fn unreadable_agent(&self, key: &ObjectKey) -> Option<&str> {
        self.unreadable_agents.get(key).map(|found| found.why.as_str())
    }

    /// An agent with its newest metadata, like [`Cache::forward`].
    #[must_use]
    pub fn agent(&self, key: &ObjectKey) -> Option<Cow<'_, ForwardAgent>> {
        let known = self.world.agents.get(key);
        let Some(found) = self.unreadable_agents.get(key) else { return known.map(Cow::Borrowed) };
        let mut agent = known.cloned().unwrap_or_else(|| ForwardAgent::new(&key.name, ForwardAgentSpec::default()));
        agent.metadata = found.metadata.clone();
        Some(Cow::Owned(agent))
    }
}
