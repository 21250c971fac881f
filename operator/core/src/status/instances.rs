//! The connected instances of agents, as the proxies report them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::world::proxy_id::ProxyId;

/// Time for which the last report of a proxy counts after its stream ended, and for which a new leader waits for
/// reports: carriers of agents do not depend on the stream.
pub const GRACE: Duration = Duration::from_secs(60);

/// The instances of each agent by uid: name and version.
pub type Report = BTreeMap<String, BTreeMap<String, String>>;

/// A connected instance of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Name that the instance gives itself.
    pub name: String,
    /// Version of its software.
    pub version: String,
    /// Number of proxies of the gateway that the instance is connected to.
    pub carriers: usize,
    /// Number of sidecars that the instance is connected to.
    pub sidecars: usize,
}

/// The last reports of proxies: at most one for each proxy with a stream, and for each proxy whose stream ended within
/// [`GRACE`].
#[derive(Debug, Default)]
pub struct Instances {
    by_proxy: BTreeMap<ProxyId, Reported>,
}

#[derive(Debug, Default)]
struct Reported {
    agents: Report,
    /// When the stream ended.
    ended: Option<Duration>,
}

impl Instances {
    /// Takes the instances that a proxy reported. Returns the uids of the agents whose instances at that proxy changed.
    pub fn reported(&mut self, proxy: &ProxyId, agents: Report) -> BTreeSet<String> {
        let known = self.by_proxy.entry(proxy.clone()).or_default();
        known.ended = None;
        let before = std::mem::replace(&mut known.agents, agents);
        let uids = before.keys().chain(known.agents.keys());
        uids.filter(|uid| before.get(*uid) != known.agents.get(*uid)).cloned().collect()
    }

    /// Records that the stream of a proxy ended.
    pub fn ended(&mut self, proxy: &ProxyId, now: Duration) {
        if let Some(reported) = self.by_proxy.get_mut(proxy) {
            reported.ended = Some(now);
        }
    }

    /// Forgets the proxies whose streams ended too long ago. Returns the uids of their agents.
    pub fn expire(&mut self, now: Duration) -> BTreeSet<String> {
        let is_over = |reported: &Reported| reported.ended.is_some_and(|at| now >= at + GRACE);
        let mut uids = BTreeSet::new();
        self.by_proxy.retain(|_, reported| {
            let is_over = is_over(reported);
            if is_over {
                uids.extend(std::mem::take(&mut reported.agents).into_keys());
            }
            !is_over
        });
        uids
    }

    /// Whether a proxy has reported.
    #[must_use]
    pub fn has(&self, proxy: &ProxyId) -> bool {
        self.by_proxy.contains_key(proxy)
    }

    /// The instances of an agent, by name. Only reports of these proxies count: no other proxy may speak for the agent.
    #[must_use]
    pub fn of(&self, uid: &str, proxies: &BTreeSet<ProxyId>) -> Vec<Instance> {
        let mut instances: BTreeMap<&String, Instance> = BTreeMap::new();
        for reported in proxies.iter().filter_map(|proxy| self.by_proxy.get(proxy)) {
            for (name, version) in reported.agents.get(uid).into_iter().flatten() {
                let new = || Instance { name: name.clone(), version: version.clone(), ..Instance::default() };
                instances.entry(name).or_insert_with(new).carriers += 1;
            }
        }
        instances.into_values().collect()
    }

    /// Counts the sidecars that each of these instances is connected to. A report of a sidecar does not count for an
    /// instance that the proxies of the gateway do not know.
    pub fn count_sidecars(&self, uid: &str, sidecars: impl Iterator<Item = ProxyId>, instances: &mut [Instance]) {
        for reported in sidecars.filter_map(|proxy| self.by_proxy.get(&proxy)) {
            let Some(there) = reported.agents.get(uid) else { continue };
            for instance in instances.iter_mut().filter(|instance| there.contains_key(&instance.name)) {
                instance.sidecars += 1;
            }
        }
    }
}

/// Returns the part of a sidecar's report that counts: at most `most` instances for each agent. Anybody may run a
/// sidecar, so the stored part of its report is bounded like its configuration.
#[must_use]
pub fn of_sidecar(report: Report, most: impl Fn(&str) -> usize) -> Report {
    let kept = |(uid, instances): (String, BTreeMap<String, String>)| {
        let most = most(&uid);
        let names = instances.into_keys().take(most).map(|name| (name, String::new()));
        (most > 0).then(|| (uid, names.collect::<BTreeMap<_, _>>()))
    };
    report.into_iter().filter_map(kept).collect()
}
