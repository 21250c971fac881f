//! Filters the reports of proxies: a report counts if it came over the newest stream of a proxy, about what its group
//! runs.

use std::{collections::BTreeSet, time::Duration};

use proxy_api::{AgentsReport, ConnectedInstance, Load, ReportPart};

use crate::{
    publish::leadership::Leadership,
    status::instances::{Report, of_sidecar},
    translate::groups::Group,
    world::{ObjectKey, proxy_id::ProxyId, subject::forward_of},
};

/// The outcome of a part of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard<'a> {
    /// The group of the proxy.
    pub group: Option<&'a Group>,
    /// Forwards with listeners whose state at the proxy changed.
    pub forwards: BTreeSet<ObjectKey>,
    /// Whether this was the last part.
    pub is_whole: bool,
}

impl Leadership {
    /// Takes a part of a report; `None` if it came over an older stream. `agreed` says whether the proxy runs the very
    /// snapshot that it was sent.
    pub fn reported(&mut self, proxy: &ProxyId, id: u64, part: ReportPart, agreed: bool) -> Option<Heard<'_>> {
        if !self.publisher.is_newest(proxy, id) {
            return None;
        }
        let is_whole = part.commit;
        let changed = self.proxies.reported(proxy, part, agreed);
        let forwards = changed.iter().filter_map(|id| forward_of(&id.origin)).collect();
        Some(Heard { group: self.group_of(proxy), forwards, is_whole })
    }

    /// Takes the load that a proxy reported. A report over an older stream does not count.
    pub fn loaded(&mut self, proxy: &ProxyId, id: u64, load: Load) {
        if self.publisher.is_newest(proxy, id) {
            self.proxies.loaded(proxy, load);
        }
    }

    /// Records that a proxy ended its drain. Returns whether to publish an Event; `None` if the message came over an
    /// older stream.
    pub fn drained(&mut self, proxy: &ProxyId, id: u64, now: Duration) -> Option<bool> {
        self.publisher.is_newest(proxy, id).then(|| self.proxies.drained(proxy, now))
    }

    /// Returns the part of a report on connected agents that counts; `None` if nothing does. Only proxies of gateways
    /// and sidecars have agents.
    #[must_use]
    pub fn agents(&self, proxy: &ProxyId, id: u64, report: AgentsReport) -> Option<Report> {
        if !self.publisher.is_newest(proxy, id) {
            return None;
        }
        match self.group_of(proxy)? {
            Group::Gateway(_) => Some(connected(report)),
            group @ Group::Sidecars(_) => {
                let runs = self.translator.snapshot(group);
                let most = |uid: &str| {
                    let agent = runs.and_then(|runs| runs.agents.get(uid));
                    agent.map_or(0, |agent| usize::try_from(agent.max_instances).unwrap_or(usize::MAX))
                };
                Some(of_sidecar(connected(report), most))
            }
            Group::Laptop => None,
        }
    }
}

/// The versions of the instances of each agent: by uid of the agent, then by name of the instance.
fn connected(report: AgentsReport) -> Report {
    let by_name =
        |instances: Vec<ConnectedInstance>| instances.into_iter().map(|it| (it.instance, it.version)).collect();
    report.agents.into_iter().map(|(uid, instances)| (uid, by_name(instances))).collect()
}
