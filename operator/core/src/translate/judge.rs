//! Judges one forward by the claims of its groups: yields the verdict, and the listeners that its proxies should run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_api::{Destinations, EndpointSet, Listener, ListenerId, Offer, Revision, SocketKey, Timeouts};

use crate::{
    translate::{
        agents::{self, Admissions},
        backends::{self, OwnPort, Resolved, Scope},
        check_warnings,
        claims::{self, Ledger, ListenerRef, Lost, Port},
        groups::Group,
        streams, tenants,
        validate::{ValidForward, ValidListener},
        verdict::{Condition, ListenerVerdict, Outcome, Reason, RejectedIn, Verdict},
    },
    world::{World, schema},
};

/// A listener as the proxies of its groups should run it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compiled {
    pub(crate) id: ListenerId,
    pub(crate) offer: Offer,
    /// The groups that run the listener, sorted.
    pub(crate) groups: Vec<Group>,
    /// Whether the listener keeps running in its last good version, because the new one is refused as a mistake.
    pub(crate) kept: bool,
    /// Whether the gateway chose the port.
    pub(crate) is_allocated: bool,
}

/// The result for one forward.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// The listeners to run, in a list rather than a map, because there are tens of thousands of judgements with few
    /// listeners.
    pub(crate) compiled: Vec<Compiled>,
    /// Endpoint sets that the backends resolved to, by name.
    pub(crate) endpoints: BTreeMap<String, EndpointSet>,
    /// Whether a backend leads to the fleet of the forward's own gateway: the claims of other forwards decide whether
    /// that is a loop.
    pub(crate) may_loop: bool,
    /// Addresses that backends name and that the gateway refuses, in any of their forms, while they are those of a node
    /// of its fleet or of the API server. Sorted.
    pub(crate) addresses: Vec<IpAddr>,
    /// The gateway in which a suspended forward keeps ports, and these ports.
    pub(crate) held: Option<(Group, BTreeSet<Port>)>,
}

impl Judgement {
    /// The judgement on a forward that is refused as a whole.
    pub(crate) fn refused(accepted: Condition) -> Self {
        let resolved = "not checked: the forward is not accepted".to_owned();
        let verdict = Verdict {
            resolved_refs: Condition::unmet(accepted.reason, resolved),
            accepted,
            listeners: Vec::new(),
            placement: String::new(),
            groups: Vec::new(),
            rejected: Vec::new(),
            warnings: Vec::new(),
        };
        Self {
            verdict,
            compiled: Vec::new(),
            endpoints: BTreeMap::new(),
            may_loop: false,
            addresses: Vec::new(),
            held: None,
        }
    }

    /// Frees the memory that lists have reserved: a growing list reserves room for four items, and nearly all of tens
    /// of thousands of forwards have one listener in one group.
    pub(crate) fn shrink(&mut self) {
        self.verdict.listeners.shrink_to_fit();
        self.verdict.groups.shrink_to_fit();
        self.verdict.rejected.shrink_to_fit();
        self.verdict.warnings.shrink_to_fit();
        self.compiled.iter_mut().for_each(|compiled| compiled.groups.shrink_to_fit());
        self.compiled.shrink_to_fit();
        self.addresses.shrink_to_fit();
    }

    /// The judgement on the last good version of a forward whose newest version is refused as a mistake: the verdict is
    /// about the newest version, and proxies run as much of the last good version as is permitted.
    pub(crate) fn behind(self, why: Condition) -> Self {
        Self { verdict: Self::refused(why).verdict, ..self }
    }
}

/// One forward, and the decisions about its groups.
pub(crate) struct Judge<'a> {
    pub(crate) world: &'a World,
    pub(crate) admissions: &'a Admissions<'a>,
    pub(crate) forward: &'a ValidForward,
    /// The groups of the forward, each with its claims and whether it counts for the verdict. A sidecar group whose
    /// pods are all terminating runs its configuration as far as possible, and does not count.
    pub(crate) own: BTreeMap<&'a Group, (&'a Ledger, bool)>,
}

impl Judge<'_> {
    pub(crate) fn judge(&self) -> Judgement {
        let forward = self.forward;
        let verdict = Verdict {
            accepted: if forward.suspended {
                Condition::met(Reason::Suspended, "suspended by spec.suspend; ports stay claimed")
            } else {
                Condition::met(Reason::Accepted, "the spec is valid and its ports are claimed")
            },
            resolved_refs: Condition::met(Reason::ResolvedRefs, "every backend exists and may be used"),
            listeners: Vec::new(),
            rejected: Vec::new(),
            warnings: schema::warning(&self.world.dropped, forward.origin.kind.as_str()).into_iter().collect(),
            placement: forward.placement.words(),
            groups: self.own.keys().map(|group| (*group).clone()).collect(),
        };
        let held = self.held();
        let mut judgement = Judgement {
            verdict,
            compiled: Vec::new(),
            endpoints: BTreeMap::new(),
            may_loop: false,
            addresses: Vec::new(),
            held,
        };
        let ports = self.ports();
        let own: Vec<OwnPort> = forward
            .listeners
            .iter()
            .zip(&ports)
            .filter_map(|(listener, port)| port.map(|port| (listener, port)))
            .flat_map(|(listener, port)| {
                let (transport, bind) = (listener.transport, claims::bind_of(self.world, forward, listener));
                let ports = port..=port.saturating_add(listener.further);
                ports.map(move |port| OwnPort { port: (transport, port), bind })
            })
            .collect();
        let listens = |port: Port| self.own.values().any(|(ledger, _)| ledger.holder(port).is_some());
        let scope = Scope::new(self.admissions, forward, &listens);
        for (at, port) in ports.iter().enumerate() {
            let listener = self.listener(at, *port, (&scope, &own), &mut judgement);
            judgement.verdict.listeners.push(listener);
        }
        judgement.addresses.sort_unstable();
        judgement.addresses.dedup();
        judgement
    }

    /// The ports that a suspended forward keeps in its gateway.
    fn held(&self) -> Option<(Group, BTreeSet<Port>)> {
        let mut own = self.own.iter().filter(|_| self.forward.suspended);
        let (group, (ledger, _)) = own.find(|(group, _)| matches!(group, Group::Gateway(_)))?;
        let listeners = self.forward.listeners.iter().enumerate();
        let ports = listeners.filter_map(|(at, listener)| {
            let first = ledger.won(&self.reference(at))?;
            Some((first..=first.saturating_add(listener.further)).map(|port| (listener.transport, port)))
        });
        Some(((*group).clone(), ports.flatten().collect()))
    }

    /// The port of each listener: the port it won in any group, or the port it requests if no group counts.
    fn ports(&self) -> Vec<Option<u16>> {
        let won = |at: usize| {
            let listener = self.reference(at);
            self.own.values().find_map(|(ledger, _)| ledger.won(&listener))
        };
        let alone = self.counted().next().is_none();
        let listeners = self.forward.listeners.iter().enumerate();
        listeners.map(|(at, listener)| won(at).or(listener.port.filter(|_| alone))).collect()
    }

    fn reference(&self, index: usize) -> ListenerRef {
        ListenerRef { forward: self.forward.origin.clone(), index }
    }

    fn listener(
        &self,
        at: usize,
        port: Option<u16>,
        (scope, own): (&Scope<'_>, &[OwnPort]),
        judgement: &mut Judgement,
    ) -> ListenerVerdict {
        let (forward, item) = (self.forward, &self.forward.listeners[at]);
        let to = item.backends.iter().map(|entry| entry.to.words(&forward.origin.namespace)).collect();
        let mut judged = ListenerVerdict {
            name: item.name.clone(),
            transport: item.transport,
            port,
            end_port: port.filter(|_| item.further > 0).map(|port| port.saturating_add(item.further)),
            hostnames: item.names.clone(),
            proxy_protocol: item.headers_before_names(),
            partial: false,
            to,
            outcome: Outcome::Suspended,
        };
        let verdict = &mut judgement.verdict;
        let lost = self.lost(at, verdict);
        let (Some(port), false) = (port, lost.is_some() && self.lost_everywhere(at)) else {
            let lost =
                lost.unwrap_or(Lost { reason: Reason::NoPortAvailable, message: "no port".to_owned(), to_app: false });
            verdict.accepted = Condition::unmet(lost.reason, lost.message.clone());
            (judged.port, judged.end_port) = (None, None);
            judged.hostnames.clear();
            judged.proxy_protocol = None;
            judged.outcome = Outcome::Refused { reason: lost.reason, message: lost.message };
            return judged;
        };
        judged.partial = lost.is_some_and(|lost| !lost.to_app);
        warn(item, port, verdict);
        verdict.warnings.extend(check_warnings::of(item, &forward.origin.namespace));
        verdict.warnings.extend(agents::warning(self.world, forward, item));
        let groups = self.counted().map(|(group, _)| group);
        verdict.warnings.extend(agents::taken_port(&forward.origin.namespace, item, groups));
        let resolved = scope.resolve(item, own);
        judgement.may_loop |= resolved.may_loop;
        judgement.addresses.extend(&resolved.addresses);
        self.resolved_refs(at, &resolved, verdict);
        verdict.warn_first(&resolved.warnings);
        if resolved.backends.is_empty()
            && let Some(problem) = resolved.problems.first()
        {
            judged.outcome = Outcome::Refused { reason: problem.reason, message: problem.message.clone() };
            return judged;
        }
        if forward.suspended {
            return judged;
        }
        if item.port.is_none() && item.held.is_none() && !self.world.site.is_laptop() {
            judged.outcome = Outcome::Allocated;
            return judged;
        }
        judged.outcome = Outcome::Published(self.publish(at, port, resolved, &scope.destinations, judgement));
        judged
    }

    fn publish(
        &self,
        at: usize,
        port: u16,
        resolved: Resolved,
        destinations: &Destinations,
        judgement: &mut Judgement,
    ) -> Revision {
        let (key, item) = (&self.forward.origin, &self.forward.listeners[at]);
        let id = ListenerId::new(key.clone(), &*item.name);
        let Resolved { mut backends, endpoints, .. } = resolved;
        backends.shrink_to_fit();
        let listener = self.compile(item, port, backends, destinations);
        let revision = listener.revision.clone();
        let reference = self.reference(at);
        let won = self.own.iter().filter(|(_, (ledger, _))| ledger.won(&reference).is_some());
        let groups = won.map(|(group, _)| (*group).clone()).collect();
        let is_allocated = item.port.is_none();
        judgement.compiled.push(Compiled { id, offer: listener.into(), groups, kept: false, is_allocated });
        judgement.endpoints.extend(endpoints);
        revision
    }

    fn compile(
        &self,
        item: &ValidListener,
        port: u16,
        backends: Vec<proxy_api::Backend>,
        destinations: &Destinations,
    ) -> Listener {
        let forward = self.forward;
        let bind = claims::bind_of(self.world, forward, item);
        Listener {
            revision: Revision::default(),
            socket: SocketKey { transport: item.transport, bind, port },
            end_port: (item.further > 0).then(|| port.saturating_add(item.further)),
            hostnames: item.names.clone(),
            backends,
            policy: item.policy,
            health_check: item.health_check.clone(),
            outlier: item.outlier,
            timeouts: Timeouts { handshake_seconds: handshake(forward, item), ..forward.timeouts },
            retry: forward.retry,
            sessions: forward.sessions,
            access_log: forward.access_log,
            destinations: destinations.clone(),
            limits: forward.limits.clone(),
            access: forward.access.clone(),
            proxy_protocol: item.proxy_protocol.clone(),
            tenant_limits: tenants::limits(self.world, forward, item.durable.is_some()).map(Box::new),
            durable: item.durable.as_deref().map(|durable| {
                // A gateway without a server has not admitted the forward.
                let served = streams::served(self.world, &forward.placement, durable);
                Box::new(served.unwrap_or_else(|| durable.clone()))
            }),
        }
        .sealed()
    }

    /// Why the listener lost its port. Records the groups if it lost the port in some of them only.
    fn lost(&self, at: usize, verdict: &mut Verdict) -> Option<Lost> {
        let listener = self.reference(at);
        let everywhere = self.lost_everywhere(at);
        let mut first = None;
        for (group, ledger) in self.counted() {
            let Some(lost) = ledger.lost(&listener) else { continue };
            if !everywhere {
                verdict.rejected.push(RejectedIn {
                    group: group.clone(),
                    listener: self.forward.listeners[at].name.clone(),
                    message: lost.message.clone(),
                });
            }
            // Report a port lost to another listener rather than one lost to an app.
            if first.as_ref().is_none_or(|first: &Lost| first.to_app) {
                first = Some(lost.clone());
            }
        }
        first
    }

    fn lost_everywhere(&self, at: usize) -> bool {
        let listener = self.reference(at);
        let mut counted = self.counted().peekable();
        counted.peek().is_some() && counted.all(|(_, ledger)| ledger.lost(&listener).is_some())
    }

    /// The groups that count for the verdict, with their claims.
    fn counted(&self) -> impl Iterator<Item = (&Group, &Ledger)> {
        let counted = self.own.iter().filter(|(_, (_, counts))| *counts);
        counted.map(|(group, (ledger, _))| (*group, *ledger))
    }

    /// Sets the condition to the first unresolved backend, or else to the first backend that is a listener of the same
    /// proxy.
    fn resolved_refs(&self, at: usize, resolved: &Resolved, verdict: &mut Verdict) {
        let item = &self.forward.listeners[at];
        let chained = item.backends.iter().find_map(|entry| {
            let local = backends::local_port(&entry.to)?;
            let mut ports = local.port..=local.port.saturating_add(item.further);
            let holder = ports.find_map(|port| {
                let port = (item.transport_out(), port);
                self.own.values().find_map(|(ledger, _)| ledger.listener_at(port, &|bind| local.is_bound_by(bind)))
            })?;
            (holder.forward != self.forward.origin).then(|| {
                let message = format!(
                    "backend {} of listener '{}' is a listener of the same proxy (forward {}); name the real server",
                    entry.to.words(&self.forward.origin.namespace),
                    item.name,
                    holder.forward
                );
                Condition::unmet(Reason::BackendLoop, message)
            })
        });
        if let Some(problem) = resolved.problems.first().cloned().or(chained)
            && verdict.resolved_refs.status
        {
            verdict.resolved_refs = problem;
        }
    }
}

/// Timeout for the PROXY header and the TLS server name, in seconds. `None` for a listener that reads neither, so that
/// the setting does not change its revision.
fn handshake(forward: &ValidForward, item: &ValidListener) -> Option<u32> {
    let reads = item.header().is_some() || !item.names.is_empty();
    reads.then(|| forward.timeouts.handshake_seconds.unwrap_or(5))
}

fn warn(item: &ValidListener, port: u16, verdict: &mut Verdict) {
    if claims::is_ephemeral(port) {
        verdict.warnings.push(format!(
            "port {port} of listener '{}' is in the ephemeral range 32768-60999, from which the machine takes ports \
             for outgoing connections: the port may be in use when the proxy starts",
            item.name
        ));
    }
    verdict.warnings.extend(item.idle.iter().cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judgement_keeps_no_room_for_items_that_do_not_come() {
        let mut judgement = Judgement::refused(Condition::unmet(Reason::Invalid, "why".to_owned()));
        judgement.verdict.warnings.reserve_exact(4);
        judgement.verdict.warnings.push("one".to_owned());
        judgement.shrink();
        assert_eq!(judgement.verdict.warnings.capacity(), 1);
    }
}
