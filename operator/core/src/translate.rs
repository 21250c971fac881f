//! The whole world in, one configuration per group and one verdict per forward out.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ForwardGateway, From};
use proxy_api::{Bind, Configuration, Listener, ListenerId, SocketKey, Transport};

use crate::{
    Condition, Group, ListenerVerdict, ObjectKey, Outcome, Reason, RejectedIn, Verdict, World,
    backends::{self, Resolved},
    claims::{self, Claims, Lost},
    groups::{self, Groups},
    validate::{Placement, ValidForward, ValidListener, Violation, validate},
};

/// What the world means.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The configuration of every group; its version is set by whoever publishes it.
    pub configurations: BTreeMap<Group, Configuration>,
    /// The judgement on every forward.
    pub verdicts: BTreeMap<ObjectKey, Verdict>,
    /// The pods of every sidecar group.
    pub pods: BTreeMap<Group, BTreeSet<ObjectKey>>,
}

/// Translates the whole world. The same world always gives the same translation.
#[must_use]
pub fn translate(world: &World) -> Translation {
    let mut translation = Translation::default();
    let mut valid = BTreeMap::new();
    for (key, forward) in &world.forwards {
        let judged = validate(forward)
            .map_err(|violations| invalid(&violations))
            .and_then(|forward| admitted(world, &forward).map(|()| forward));
        match judged {
            Ok(forward) => {
                valid.insert(key.clone(), forward);
            }
            Err(refused) => {
                translation.verdicts.insert(key.clone(), Verdict::refused(refused));
            }
        }
    }
    for key in world.unreadable.keys().filter(|key| !valid.contains_key(key)) {
        translation.verdicts.insert(key.clone(), Verdict::refused(Condition::met(Reason::Accepted, "")));
    }
    let groups = groups::groups(world, &valid);
    let claims: BTreeMap<Group, Claims> = groups
        .forwards
        .iter()
        .map(|(group, members)| (group.clone(), claims::claims(world, group, members, &valid)))
        .collect();
    for group in groups.forwards.keys() {
        translation.configurations.insert(group.clone(), Configuration::default());
    }
    for forward in valid.values() {
        let verdict = Judge { world, groups: &groups, own: groups.of(&forward.key), claims: &claims, forward }
            .judge(&mut translation.configurations);
        translation.verdicts.insert(forward.key.clone(), verdict);
    }
    for (key, why) in &world.unreadable {
        if let Some(verdict) = translation.verdicts.get_mut(key) {
            verdict.accepted = unreadable(why);
        }
    }
    translation.pods = groups.pods.into_iter().map(|(group, pods)| (group, pods.into_iter().collect())).collect();
    translation
}

fn unreadable(why: &str) -> Condition {
    let message = format!(
        "this operator cannot read the object ({why}); what ran before goes on: install CRDs and operator of one release"
    );
    Condition::unmet(Reason::Unsupported, message)
}

impl Verdict {
    fn refused(accepted: Condition) -> Self {
        Self {
            resolved_refs: Condition::unmet(accepted.reason, "not looked at: the forward is not accepted".to_owned()),
            accepted,
            listeners: Vec::new(),
            placement: String::new(),
            groups: BTreeSet::new(),
            rejected: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

fn invalid(violations: &[Violation]) -> Condition {
    let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
    Condition::unmet(Reason::Invalid, all.join("; "))
}

/// Whether the gateway of a forward exists and lets it in.
fn admitted(world: &World, forward: &ValidForward) -> Result<(), Condition> {
    let Placement::Gateway(key) = &forward.placement else { return Ok(()) };
    let Some(gateway) = world.gateways.get(key) else {
        // A laptop stands in for a gateway that is not among its manifests.
        let missing = || Condition::unmet(Reason::GatewayNotFound, format!("ForwardGateway {key} does not exist"));
        return if world.site.is_laptop() { Ok(()) } else { Err(missing()) };
    };
    if !namespace_allowed(world, key, gateway, &forward.key.namespace) {
        let message = format!(
            "ForwardGateway {key} does not admit forwards of namespace '{}': see its spec.allowedForwards.namespaces",
            forward.key.namespace
        );
        return Err(Condition::unmet(Reason::NotAllowedByGateway, message));
    }
    if let Some(cidr) = backends::bad_cidr(gateway) {
        let message = format!(
            "ForwardGateway {key} has spec.allowedForwards.addressCIDRs that cannot be read: '{cidr}' is not a network"
        );
        return Err(Condition::unmet(Reason::NotAllowedByGateway, message));
    }
    let outside = forward.listeners.iter().find(|listener| !port_allowed(gateway, listener));
    match outside {
        None => Ok(()),
        Some(listener) => Err(Condition::unmet(
            Reason::NotAllowedByGateway,
            format!(
                "ForwardGateway {key} does not admit port {}/{} of listener '{}': see its spec.allowedForwards.ports",
                listener.port.unwrap_or_default(),
                listener.transport,
                listener.name
            ),
        )),
    }
}

fn namespace_allowed(world: &World, key: &ObjectKey, gateway: &ForwardGateway, namespace: &str) -> bool {
    let scope = gateway.spec.allowed_forwards.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match scope.map(|scope| (scope.from, scope.selector.as_ref())) {
        None | Some((From::Same, _)) => key.namespace == namespace,
        Some((From::All, _)) => true,
        Some((From::Selector, selector)) => {
            let labels = world.namespaces.get(namespace);
            selector.zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        }
    }
}

fn port_allowed(gateway: &ForwardGateway, listener: &ValidListener) -> bool {
    let ranges = gateway.spec.allowed_forwards.as_ref().map(|allowed| allowed.ports.as_slice()).unwrap_or_default();
    let Some(port) = listener.port.or(listener.held) else { return true };
    ranges.is_empty()
        || ranges.iter().any(|range| {
            crate::validate::transport(range.protocol) == listener.transport
                && (range.port..=range.end_port.unwrap_or(range.port)).contains(&port)
        })
}

/// One forward in front of all that was decided about the groups.
struct Judge<'a> {
    world: &'a World,
    groups: &'a Groups,
    /// The groups that this forward is in.
    own: BTreeSet<Group>,
    claims: &'a BTreeMap<Group, Claims>,
    forward: &'a ValidForward,
}

impl Judge<'_> {
    fn judge(&self, configurations: &mut BTreeMap<Group, Configuration>) -> Verdict {
        let forward = self.forward;
        let mut verdict = Verdict {
            accepted: if forward.suspended {
                Condition::met(Reason::Suspended, "suspended by spec.suspend; ports stay claimed")
            } else {
                Condition::met(Reason::Accepted, "the spec is valid and its ports are won")
            },
            resolved_refs: Condition::met(Reason::ResolvedRefs, "every backend exists and may be used"),
            listeners: Vec::new(),
            rejected: Vec::new(),
            warnings: Vec::new(),
            placement: forward.placement.words(),
            groups: self.own.clone(),
        };
        let ports = self.ports();
        let own: Vec<(Transport, u16)> = forward
            .listeners
            .iter()
            .zip(&ports)
            .filter_map(|(listener, port)| port.map(|port| (listener.transport, port)))
            .collect();
        for (at, port) in ports.iter().enumerate() {
            let listener = self.listener(at, *port, &own, &mut verdict, configurations);
            verdict.listeners.push(listener);
        }
        verdict
    }

    /// The port of each listener: the one it won somewhere, else the one it asks for if it meets nobody.
    fn ports(&self) -> Vec<Option<u16>> {
        let won = |at: usize| {
            let place = (self.forward.key.clone(), at);
            self.own.iter().find_map(|group| self.claims[group].won.get(&place).copied())
        };
        let alone = self.own.is_empty();
        let listeners = self.forward.listeners.iter().enumerate();
        listeners.map(|(at, listener)| won(at).or(listener.port.filter(|_| alone))).collect()
    }

    fn listener(
        &self,
        at: usize,
        port: Option<u16>,
        own: &[(Transport, u16)],
        verdict: &mut Verdict,
        configurations: &mut BTreeMap<Group, Configuration>,
    ) -> ListenerVerdict {
        let (forward, item) = (self.forward, &self.forward.listeners[at]);
        let to = item.backends.iter().map(|entry| entry.to.words(&forward.key.namespace)).collect();
        let mut judged = ListenerVerdict {
            name: item.name.clone(),
            transport: item.transport,
            port,
            partial: false,
            to,
            outcome: Outcome::Suspended,
        };
        let lost = self.lost(at, verdict);
        let (Some(port), false) = (port, lost.is_some() && self.lost_everywhere(at)) else {
            let lost = lost.unwrap_or(Lost { reason: Reason::NoPortAvailable, message: "no port".to_owned() });
            verdict.accepted = Condition::unmet(lost.reason, lost.message.clone());
            judged.port = None;
            judged.outcome = Outcome::Refused { reason: lost.reason, message: lost.message };
            return judged;
        };
        judged.partial = lost.is_some();
        warn(item, port, verdict);
        let destinations = backends::destinations(self.world, forward);
        let resolved = backends::resolve(self.world, forward, item, own, &destinations);
        self.resolved_refs(at, &resolved, verdict);
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
        let listener = self.compile(item, port, &resolved, destinations);
        judged.outcome = Outcome::Published(listener.revision.clone());
        self.publish(at, &listener, &resolved, configurations);
        judged
    }

    /// Why the listener lost its port, noting the pods in which it did.
    fn lost(&self, at: usize, verdict: &mut Verdict) -> Option<Lost> {
        let place = (self.forward.key.clone(), at);
        let mut first = None;
        for group in &verdict.groups {
            let Some(lost) = self.claims[group].lost.get(&place) else { continue };
            if !self.lost_everywhere(at) {
                let pods = self.groups.pods.get(group).into_iter().flatten();
                verdict.rejected.extend(pods.map(|pod| RejectedIn {
                    pod: pod.clone(),
                    listener: self.forward.listeners[at].name.clone(),
                    message: lost.message.clone(),
                }));
            }
            first.get_or_insert_with(|| lost.clone());
        }
        first
    }

    fn lost_everywhere(&self, at: usize) -> bool {
        let place = (self.forward.key.clone(), at);
        self.own.iter().all(|group| self.claims[group].lost.contains_key(&place))
    }

    /// Sets the condition by what could not be resolved, and by backends that are listeners of the same proxies.
    fn resolved_refs(&self, at: usize, resolved: &Resolved, verdict: &mut Verdict) {
        let item = &self.forward.listeners[at];
        let chained = item.backends.iter().find_map(|entry| {
            let port = backends::local_port(&entry.to)?;
            let holder = verdict.groups.iter().find_map(|group| self.claims[group].holder(item.transport, port))?;
            (holder.0 != self.forward.key).then(|| {
                let message = format!(
                    "backend {} of listener '{}' is a listener of the same proxy (forward {}); name the real server",
                    entry.to.words(&self.forward.key.namespace),
                    item.name,
                    holder.0
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

    fn compile(
        &self,
        item: &ValidListener,
        port: u16,
        resolved: &Resolved,
        destinations: proxy_api::Destinations,
    ) -> Listener {
        let forward = self.forward;
        let in_fleet = matches!(forward.placement, Placement::Gateway(_)) && !self.world.site.is_laptop();
        let usual = if in_fleet { Bind::All } else { Bind::Loopback };
        Listener {
            revision: proxy_api::Revision::default(),
            socket: SocketKey { transport: item.transport, bind: item.bind.unwrap_or(usual), port },
            backends: resolved.backends.clone(),
            policy: item.policy,
            outlier: item.outlier,
            timeouts: forward.timeouts,
            retry: forward.retry,
            sessions: forward.sessions,
            access_log: forward.access_log,
            destinations,
        }
        .sealed()
    }

    fn publish(
        &self,
        at: usize,
        listener: &Listener,
        resolved: &Resolved,
        configurations: &mut BTreeMap<Group, Configuration>,
    ) {
        let key = &self.forward.key;
        let id = ListenerId {
            namespace: key.namespace.clone(),
            forward: key.name.clone(),
            listener: self.forward.listeners[at].name.clone(),
        };
        for group in &self.own {
            if !self.claims[group].won.contains_key(&(key.clone(), at)) {
                continue;
            }
            let configuration = configurations.entry(group.clone()).or_default();
            configuration.listeners.insert(id.clone(), listener.clone().into());
            configuration.endpoints.extend(resolved.endpoints.clone());
        }
    }
}

fn warn(item: &ValidListener, port: u16, verdict: &mut Verdict) {
    if claims::is_ephemeral(port) {
        verdict.warnings.push(format!(
            "port {port} of listener '{}' is in 32768-60999, where the machine takes ports for its own connections: \
             it may be in use when the proxy starts",
            item.name
        ));
    }
}
