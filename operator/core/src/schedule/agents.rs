//! Schedules writes of the statuses of agents.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crds::{ForwardAgent, ForwardAgentStatus};
use proxy_api::doors::{Bucket, Rate};

use crate::{
    schedule::{Effect, StatusWrite, View},
    status::{
        agent::{AgentFacts, Enrolment, agent_status},
        events::{of_agent, reference},
        instances::{GRACE, Instances, Report},
        patch::all_of_agent,
    },
    translate::{
        agents::{self, Admissions},
        groups::Group,
        verdict::{Condition, Reason},
    },
    world::{
        ObjectKey, World, agents::gateway_of, cache::Cache, changes::Changes, proxy_id::ProxyId, schema,
        subject::Subject,
    },
};

/// Pause between two writes of one agent's status once its burst is used up: instances may come and go all the time.
const EACH: Duration = Duration::from_secs(2);
/// Writes of one agent's status that need no pause.
const BURST: u32 = 10;
/// Most agents that one tick evaluates.
const PER_TICK: usize = 1000;
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Longest time until the cache shows a written status.
const SHOWN: Duration = Duration::from_secs(10);

/// A written status, until the cache shows it.
#[derive(Debug)]
struct Unseen {
    status: ForwardAgentStatus,
    /// Resource version of the object with the written status; absent until it is known.
    version: Option<String>,
    at: Duration,
}

/// State of one agent's status.
#[derive(Debug, Default)]
struct Entry {
    uid: String,
    bucket: Bucket,
    /// Whether a write is in progress.
    writing: bool,
    /// Whether something changed during the write.
    again: bool,
    unseen: Option<Unseen>,
    /// Status and reason of each condition at the last write.
    reported: BTreeMap<String, (String, String)>,
}

/// The statuses of all agents, in one leader election term.
#[derive(Debug, Default)]
pub struct Agents {
    began: Duration,
    entries: BTreeMap<ObjectKey, Entry>,
    by_uid: BTreeMap<String, ObjectKey>,
    enrolments: BTreeMap<ObjectKey, Enrolment>,
    instances: Instances,
    /// Agents to evaluate at the next tick.
    now: BTreeSet<ObjectKey>,
    /// Agents to evaluate later.
    later: BTreeSet<(Duration, ObjectKey)>,
}

impl Agents {
    /// Begins a leader election term.
    #[must_use]
    pub fn new(began: Duration) -> Self {
        Self { began, ..Self::default() }
    }

    /// Takes a new version of an agent from the cache; `None` if the agent is gone.
    pub fn seen(&mut self, key: &ObjectKey, agent: Option<&ForwardAgent>) {
        let uid = agent.and_then(|agent| agent.metadata.uid.clone()).unwrap_or_default();
        if let Some(entry) = self.entries.get(key)
            && entry.uid != uid
        {
            // A new object of the same name inherits nothing.
            self.by_uid.remove(&entry.uid);
            self.entries.remove(key);
            self.enrolments.remove(key);
        }
        let Some(agent) = agent else { return };
        let entry = self.entries.entry(key.clone()).or_default();
        entry.uid.clone_from(&uid);
        if entry.unseen.as_ref().is_some_and(|unseen| unseen.version == agent.metadata.resource_version) {
            entry.unseen = None;
        }
        self.by_uid.insert(uid, key.clone());
        self.now.insert(key.clone());
    }

    /// Takes the changes of a translation that may affect how agents are admitted.
    pub fn translated(&mut self, changes: &Changes, world: &World) {
        self.now.extend(agents::changed(world, changes));
    }

    /// Records that the pods of a gateway changed.
    pub fn fleet(&mut self, gateway: &ObjectKey, world: &World) {
        self.now.extend(world.agents.of_gateway(gateway).cloned());
    }

    /// Records that the agents of these uids reach different pods, or that a different number of pods is left out.
    pub fn reaching(&mut self, uids: &BTreeSet<String>) {
        self.look_at_all(uids);
    }

    /// Records the enrolment of an agent's instances.
    pub fn enrolled(&mut self, key: &ObjectKey, enrolment: Enrolment) {
        if self.enrolments.get(key) != Some(&enrolment) {
            self.enrolments.insert(key.clone(), enrolment);
            self.now.insert(key.clone());
        }
    }

    /// Takes a proxy's report of the instances that are connected to it.
    pub fn reported(&mut self, proxy: &ProxyId, report: Report) {
        let uids = self.instances.reported(proxy, report);
        self.look_at_all(&uids);
    }

    /// Schedules the status of an agent for evaluation.
    pub fn look_at(&mut self, key: &ObjectKey) {
        self.now.insert(key.clone());
    }

    /// Records that the stream of a proxy ended.
    pub fn ended(&mut self, proxy: &ProxyId, now: Duration) {
        self.instances.ended(proxy, now);
    }

    /// Records that a write ended. `version` is the resource version of the object with the status, `None` if the write
    /// failed. `retried` says whether a later attempt may succeed.
    pub fn written(&mut self, subject: &Subject, version: Option<&str>, retried: bool, now: Duration) {
        let Subject::Agent(key) = subject else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.writing = false;
        match (version, &mut entry.unseen) {
            (Some(version), Some(unseen)) => unseen.version = Some(version.to_owned()),
            _ => entry.unseen = None,
        }
        let again = std::mem::take(&mut entry.again);
        if retried {
            self.later.insert((now + RETRY, key.clone()));
        } else if again {
            self.now.insert(key.clone());
        }
    }

    /// Returns the due writes, with the events for the changes. Adds no write to `room` effects.
    pub fn tick(&mut self, view: &View<'_>, room: usize, now: Duration) -> Vec<Effect> {
        let uids = self.instances.expire(now);
        self.look_at_all(&uids);
        while let Some((at, key)) = self.later.first().cloned()
            && at <= now
        {
            self.later.remove(&(at, key.clone()));
            self.now.insert(key);
        }
        let mut effects = Vec::new();
        let admissions = Admissions::new(&view.cache.world);
        for _ in 0..PER_TICK {
            if effects.len() >= room {
                break;
            }
            let Some(key) = self.now.pop_first() else { break };
            self.one(&key, (view, &admissions), now, &mut effects);
        }
        effects
    }

    fn look_at_all(&mut self, uids: &BTreeSet<String>) {
        self.now.extend(uids.iter().filter_map(|uid| self.by_uid.get(uid)).cloned());
    }

    fn one(
        &mut self,
        key: &ObjectKey,
        (view, admissions): (&View<'_>, &Admissions<'_>),
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut agent) = view.cache.agent(key).map(Cow::into_owned) else { return };
        let gateway = gateway_of(key, &agent);
        if gateway.as_ref().is_some_and(|gateway| view.cache.world.foreign_gateways.contains_key(gateway)) {
            // The operator of the gateway writes the status.
            return;
        }
        let facts = self.facts((key, &agent), (view, admissions), now);
        if facts.connected.is_none() {
            self.later.insert((self.began + GRACE, key.clone()));
        }
        let is_unreadable = view.cache.unreadable_agent(key).is_some();
        let uid = agent.metadata.uid.clone().unwrap_or_default();
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.uid != uid {
            entry.uid.clone_from(&uid);
            self.by_uid.insert(uid.clone(), key.clone());
        }
        if entry.writing {
            entry.again = true;
            return;
        }
        // The cache never shows the status of an unreadable object, so the written status is kept.
        if !is_unreadable && entry.unseen.as_ref().is_some_and(|unseen| now.saturating_sub(unseen.at) > SHOWN) {
            entry.unseen = None;
        }
        if let Some(unseen) = &entry.unseen {
            agent.status = Some(unseen.status.clone());
        }
        let next = agent_status(&agent, &facts, view.wall_clock);
        if agent.status.as_ref() == Some(&next) {
            return;
        }
        let rate = Rate::every(EACH, BURST);
        if !entry.bucket.take(rate, now) {
            self.later.insert((now + entry.bucket.wait(rate, now), key.clone()));
            return;
        }
        let (object, old) = (reference("ForwardAgent", &agent.metadata), agent.status.unwrap_or_default());
        let events = of_agent(&object, &old.conditions, &next.conditions, &mut entry.reported);
        effects.extend(events.into_iter().map(Effect::Event));
        entry.writing = true;
        let status = all_of_agent(&next);
        entry.unseen = Some(Unseen { status: next, version: None, at: now });
        effects.push(Effect::WriteStatus(StatusWrite { subject: Subject::Agent(key.clone()), uid, status }));
    }

    fn facts(
        &self,
        (key, agent): (&ObjectKey, &ForwardAgent),
        (view, admissions): (&View<'_>, &Admissions<'_>),
        now: Duration,
    ) -> AgentFacts {
        let admitted = admitted(view.cache, admissions, key, agent);
        let fleet = admitted.as_ref().ok().and_then(|gateway| view.fleets.all().get(&Group::Gateway(gateway.clone())));
        let nobody = BTreeSet::new();
        let proxies = fleet.map_or(&nobody, |fleet| &fleet.members);
        let is_heard = now >= self.began + GRACE || proxies.iter().all(|proxy| self.instances.has(proxy));
        let uid = agent.metadata.uid.as_deref().unwrap_or_default();
        let left_out = admitted.as_ref().map_or(0, |gateway| view.translator.left_out(gateway, uid));
        let reached = admitted.as_ref().ok().and_then(|gateway| view.translator.reached(gateway, uid));
        let connected = is_heard.then(|| {
            let mut instances = self.instances.of(uid, proxies);
            let sidecars = reached.into_iter().flatten().cloned().map(ProxyId::from);
            self.instances.count_sidecars(uid, sidecars, &mut instances);
            instances
        });
        AgentFacts {
            admitted,
            warning: schema::warning(&view.cache.world.dropped, "ForwardAgent"),
            left_out,
            enrolment: self.enrolments.get(key).cloned(),
            connected,
            ready: fleet.map_or(0, |fleet| fleet.ready),
            sidecars: reached.map_or(0, BTreeSet::len),
        }
    }
}

/// The gateway that takes an agent, or why none does.
fn admitted(
    cache: &Cache,
    admissions: &Admissions<'_>,
    key: &ObjectKey,
    agent: &ForwardAgent,
) -> Result<ObjectKey, Condition> {
    if let Some(why) = cache.unreadable_agent(key) {
        let message = format!(
            "this operator cannot read the object ({why}); its last version that could be read stays in force: install \
             CRDs and operator of the same release"
        );
        return Err(Condition::unmet(Reason::Unsupported, message));
    }
    admissions.of(key, agent)
}
