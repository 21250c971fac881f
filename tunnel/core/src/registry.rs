//! Which agents are connected to an endpoint, and which may be.
//!
//! An agent is identified by its uid. It may have several instances: processes with the same identity and their own
//! names. Each has at most one session here. Pure: the time since any fixed start is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::hello::{Boot, Denial, Denied, Hello, Instance, SessionName, VERSIONS, agree};
use crate::identity::AgentIdentity;

#[cfg(test)]
mod tests;

/// Earlier runs of one instance that are remembered, so that two processes with one name do not replace each other in
/// turn.
const SUPERSEDED: usize = 4;

/// The permissions of an agent, from its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Certificates of an earlier rotation are refused.
    pub rotation: u32,
    /// Whether no instance may connect.
    pub suspended: bool,
    /// Whether the agent is suspended because its object has a field that the server does not know.
    pub is_newer: bool,
    /// The most instances at once.
    pub max_instances: usize,
}

/// One instance of one agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The uid of the agent.
    pub uid: String,
    /// Which of the agent's processes.
    pub instance: Instance,
}

/// The decision of an endpoint on a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// A new session begins. An earlier session of the instance ends, and its streams are reset at once.
    New,
    /// The session of the instance resumes.
    Resume,
    /// The connection ends.
    Denied(Denied),
}

/// The registry's entry of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The identity in the certificate of its last connection.
    pub identity: AgentIdentity,
    /// The version of its program.
    pub program: String,
    /// When its session began.
    pub since: Duration,
    boot: Boot,
    born: u64,
    epoch: u64,
    superseded: VecDeque<Boot>,
}

/// The load of an instance. The instance with the lowest load is asked first for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// The instance takes no new streams.
    pub leaving: bool,
    /// The instance has no connection now, so a stream would wait for one.
    pub detached: bool,
    /// The number of its streams.
    pub streams: usize,
}

/// The instances that have a session at an endpoint.
#[derive(Clone, Debug)]
pub struct Registry {
    boot: Boot,
    max: usize,
    draining: bool,
    instances: BTreeMap<Key, Known>,
}

impl Registry {
    /// Creates the registry of one run of an endpoint, for at most `max` instances.
    pub fn new(boot: Boot, max: usize) -> Self {
        Self { boot, max, draining: false, instances: BTreeMap::new() }
    }

    /// Begins no more sessions. Existing sessions continue, also on new connections.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The instances.
    pub fn instances(&self) -> &BTreeMap<Key, Known> {
        &self.instances
    }

    /// Decides on a [`Hello`] from the owner of a verified certificate. `policy` is the policy of the agent, if the
    /// endpoint knows its uid.
    pub fn admit(
        &mut self,
        identity: &AgentIdentity,
        hello: &Hello,
        policy: Option<&Policy>,
        now: Duration,
    ) -> Admission {
        if agree(&hello.versions).is_none() {
            return Admission::Denied(other_versions(hello));
        }
        if let Err(denied) = permit(identity, policy) {
            return Admission::Denied(denied);
        }
        let key = Key { uid: identity.uid().to_owned(), instance: hello.instance.clone() };
        let Some(known) = self.instances.get_mut(&key) else {
            return self.add(key, identity, hello, policy, now);
        };
        if let Some(denied) = known.refuses(hello) {
            return Admission::Denied(denied);
        }
        let resumed = known.boot == hello.boot && hello.sessions.contains(&known.session(self.boot));
        if !resumed && self.draining {
            return Admission::Denied(draining());
        }
        known.identity = identity.clone();
        known.program.clone_from(&hello.program);
        known.epoch = hello.epoch;
        if resumed {
            return Admission::Resume;
        }
        known.begin(hello, now);
        Admission::New
    }

    fn add(
        &mut self,
        key: Key,
        identity: &AgentIdentity,
        hello: &Hello,
        policy: Option<&Policy>,
        now: Duration,
    ) -> Admission {
        let max = policy.map_or(0, |policy| policy.max_instances);
        let siblings = self.instances.keys().filter(|other| other.uid == key.uid).count();
        if self.draining {
            return Admission::Denied(draining());
        }
        if siblings >= max {
            let detail = format!(
                "agent {} has {siblings} instances here and may have {max}: stop one, or raise maxInstances of the agent",
                identity.agent()
            );
            return Admission::Denied(Denied { reason: Denial::Instances, detail });
        }
        if self.instances.len() >= self.max {
            let detail = format!("the endpoint serves {} agents, which is its limit: raise maxAgents there", self.max);
            return Admission::Denied(Denied { reason: Denial::Full, detail });
        }
        let known = Known {
            identity: identity.clone(),
            program: hello.program.clone(),
            since: now,
            boot: hello.boot,
            born: hello.epoch,
            epoch: hello.epoch,
            superseded: VecDeque::new(),
        };
        self.instances.insert(key, known);
        Admission::New
    }

    /// Forgets the ended session of this run of an instance. A later run is left alone.
    pub fn forget(&mut self, key: &Key, session: SessionName) {
        if self.instances.get(key).is_some_and(|known| known.session(self.boot) == session) {
            self.instances.remove(key);
        }
    }

    /// The name of an instance's session.
    pub fn session(&self, key: &Key) -> Option<SessionName> {
        self.instances.get(key).map(|known| known.session(self.boot))
    }

    /// Forgets the instances that may no longer be connected, and returns the reasons. Their sessions must end.
    pub fn review(&mut self, policy: impl Fn(&AgentIdentity) -> Option<Policy>) -> Vec<(Key, Denied)> {
        let denied = self.instances.iter().filter_map(|(key, known)| {
            let denied = permit(&known.identity, policy(&known.identity).as_ref()).err()?;
            Some((key.clone(), denied))
        });
        let denied: Vec<(Key, Denied)> = denied.collect();
        for (key, _) in &denied {
            self.instances.remove(key);
        }
        denied
    }
}

impl Known {
    fn session(&self, endpoint: Boot) -> SessionName {
        SessionName { endpoint, born: self.born }
    }

    fn refuses(&self, hello: &Hello) -> Option<Denied> {
        if self.superseded.contains(&hello.boot) {
            let detail = format!(
                "another process with the certificate of this agent has connected as instance {}: stop one of them, or \
                 start each with a --name of its own",
                hello.instance
            );
            return Some(Denied { reason: Denial::Superseded, detail });
        }
        (self.boot == hello.boot && hello.epoch <= self.epoch)
            .then(|| Denied { reason: Denial::Stale, detail: "a later connection of this agent is in use".to_owned() })
    }

    fn begin(&mut self, hello: &Hello, now: Duration) {
        if self.boot != hello.boot {
            self.superseded.push_back(self.boot);
            if self.superseded.len() > SUPERSEDED {
                self.superseded.pop_front();
            }
        }
        self.boot = hello.boot;
        self.born = hello.epoch;
        self.since = now;
    }
}

/// Whether the agent may get a certificate. A suspended agent may, so that it need not enrol again afterwards.
pub fn certifiable(identity: &AgentIdentity, policy: Option<&Policy>) -> Result<(), Denied> {
    permit(identity, policy.map(|policy| Policy { suspended: false, ..*policy }).as_ref())
}

/// Whether the agent may be connected at all.
fn permit(identity: &AgentIdentity, policy: Option<&Policy>) -> Result<(), Denied> {
    let agent = identity.agent();
    let Some(policy) = policy else {
        let detail = format!("there is no agent {agent} with this uid here: enrol again with a new join string");
        return Err(Denied { reason: Denial::Unknown, detail });
    };
    if policy.suspended {
        let remedy = if policy.is_newer {
            "the server does not know a field of its ForwardAgent: upgrade the server"
        } else {
            "its owner sets suspend to false"
        };
        let detail = format!("agent {agent} is suspended: {remedy}");
        return Err(Denied { reason: Denial::Suspended, detail });
    }
    if identity.rotation() < policy.rotation {
        let detail = format!(
            "the certificate of agent {agent} has rotation {} and was revoked by rotation {}: enrol again with a new \
             join string",
            identity.rotation(),
            policy.rotation
        );
        return Err(Denied { reason: Denial::Revoked, detail });
    }
    Ok(())
}

fn other_versions(hello: &Hello) -> Denied {
    let end = if hello.versions.end() < VERSIONS.start() { "agent" } else { "endpoint" };
    let detail = format!(
        "the endpoint speaks versions {} to {} of the tunnel protocol, and the agent {} to {}: upgrade the {end}",
        VERSIONS.start(),
        VERSIONS.end(),
        hello.versions.start(),
        hello.versions.end()
    );
    Denied { reason: Denial::Version, detail }
}

fn draining() -> Denied {
    Denied { reason: Denial::Draining, detail: "the endpoint is shutting down: dial another one".into() }
}
