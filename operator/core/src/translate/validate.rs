//! Validates one object on its own and fills in defaults.
//!
//! The API server rejects most violations by schema and CEL. The installed CRD may be older than the operator, so the
//! rules that the translation relies on are checked here again.

use std::{cmp, fmt};

use crds::{AcceptedHeaders, AccessLogMode, Backend, Listener, ListenerStatus, PortForward, Selector};
use ipnet::IpNet;
use proxy_api::{AcceptHeader, Bind, Origin, OriginKind, Outlier, Policy, Retry, Sessions, Timeouts, Transport};

mod guard;
mod health;
mod held;
mod ports;

use self::held::Held;
use crate::{hash::hash, world::ObjectKey};

pub(crate) use self::held::{Standing, held_in};

/// A rule that an object violates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Path of the field, such as `spec.listeners[0].port`.
    pub field: String,
    /// The rule, or the cause and the remedy.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A valid forward with all defaults filled in.
#[derive(Clone, Debug)]
pub struct ValidForward {
    pub(crate) origin: Origin,
    /// Creation time in nanoseconds since 1970, if known.
    pub(crate) created: Option<i128>,
    pub(crate) suspended: bool,
    pub(crate) placement: Placement,
    pub(crate) listeners: Vec<ValidListener>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Retry,
    pub(crate) sessions: Sessions,
    pub(crate) access_log: proxy_api::AccessLog,
    pub(crate) limits: Option<proxy_api::Limits>,
    pub(crate) access: Option<proxy_api::Access>,
}

#[derive(Clone, Debug)]
pub(crate) enum Placement {
    Sidecar(Selector),
    Gateway(ObjectKey),
}

#[derive(Clone, Debug)]
pub(crate) struct ValidListener {
    pub(crate) name: String,
    pub(crate) transport: Transport,
    /// The requested port; `None` requests any.
    pub(crate) port: Option<u16>,
    /// Number of ports after the first.
    pub(crate) further: u16,
    /// TLS server names, sorted.
    pub(crate) names: Vec<String>,
    /// The port that status lists for the listener.
    pub(crate) held: Option<Held>,
    /// `None` is the default of the placement.
    pub(crate) bind: Option<Bind>,
    pub(crate) backends: Vec<ValidBackend>,
    pub(crate) policy: Policy,
    pub(crate) outlier: Outlier,
    pub(crate) proxy_protocol: Option<proxy_api::ProxyProtocol>,
    pub(crate) health_check: Option<proxy_api::HealthCheck>,
}

impl ValidListener {
    /// PROXY headers that the listener reads, and the networks trusted to send them.
    pub(crate) fn header(&self) -> Option<(AcceptHeader, &[IpNet])> {
        let protocol = self.proxy_protocol.as_ref().filter(|it| it.accept != AcceptHeader::Disabled)?;
        Some((protocol.accept, &protocol.trusted))
    }

    /// The PROXY headers that are read before a server name, in the form of status.
    pub(crate) fn headers_before_names(&self) -> Option<AcceptedHeaders> {
        accepted_headers(self.header().filter(|_| !self.names.is_empty()))
    }
}

/// Converts accepted PROXY headers to the form of status; `None` if the listener reads none.
#[must_use]
pub fn accepted_headers(header: Option<(AcceptHeader, &[IpNet])>) -> Option<AcceptedHeaders> {
    let (accept, trusted) = header?;
    let accept = match accept {
        AcceptHeader::Disabled => return None,
        AcceptHeader::Optional => crds::AcceptHeader::Optional,
        AcceptHeader::Required => crds::AcceptHeader::Required,
    };
    Some(AcceptedHeaders { accept, trusted_cidrs: trusted.iter().map(ToString::to_string).collect() })
}

#[derive(Clone, Debug)]
pub(crate) struct ValidBackend {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) to: Destination,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Service { key: ObjectKey, port: u16 },
    Address { host: String, port: u16 },
    Local { port: u16 },
}

impl Destination {
    /// Identity of the backend in the contract with proxies.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Service { key, port } => format!("svc/{key}:{port}"),
            Self::Address { host, port } => format!("addr/{}", host_port(host, *port)),
            Self::Local { port } => format!("local:{port}"),
        }
    }

    /// Short form for status, without the forward's own namespace.
    pub(crate) fn words(&self, own_namespace: &str) -> String {
        match self {
            Self::Service { key, port } if key.namespace == own_namespace => format!("svc/{}:{port}", key.name),
            Self::Service { .. } | Self::Local { .. } => self.id(),
            Self::Address { host, port } => host_port(host, *port),
        }
    }
}

pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Checks one object and fills in defaults.
///
/// # Errors
/// All violations of the object.
pub fn validate(forward: &PortForward) -> Result<ValidForward, Vec<Violation>> {
    let mut found = Violations::default();
    let key = Origin {
        kind: OriginKind::PortForward,
        namespace: forward.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: forward.metadata.name.clone().unwrap_or_default(),
    };
    if key.name.is_empty() {
        found.add("metadata.name", "must be set");
    }
    let placement = placement(forward, &key, &mut found);
    let held = placement.as_ref().map_or(&[][..], |placement| held::held(forward, placement));
    let in_gateway = matches!(placement, Some(Placement::Gateway(_)));
    let spec = &forward.spec;
    if spec.listeners.is_empty() || spec.listeners.len() > 32 {
        found.add("spec.listeners", "must have 1 to 32 items");
    }
    let listeners: Vec<ValidListener> = spec
        .listeners
        .iter()
        .enumerate()
        .map(|(at, item)| listener(item, &format!("spec.listeners[{at}]"), held, &key, in_gateway, &mut found))
        .collect();
    ports::uniqueness(&listeners, &mut found);
    let limits = guard::limits(spec.limits.as_ref(), &mut found);
    let access = guard::access(spec.access.as_ref(), &mut found);
    match (placement, found.0.is_empty()) {
        (Some(placement), true) => Ok(ValidForward {
            created: forward.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond()),
            suspended: spec.suspend.unwrap_or(false),
            placement,
            listeners,
            timeouts: timeouts(spec.timeouts.as_ref()),
            limits,
            access,
            retry: retry(spec.retry.as_ref()),
            sessions: sessions(spec.sessions.as_ref()),
            access_log: access_log(spec.access_log.as_ref()),
            origin: key,
        }),
        _ => Err(found.0),
    }
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: impl Into<String>, message: &str) {
        self.0.push(Violation { field: field.into(), message: message.to_owned() });
    }
}

impl Placement {
    /// The placement in the form of status.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Sidecar(selector) => sidecar_words(selector),
            Self::Gateway(key) => format!("gateway {key}"),
        }
    }
}

/// Placement of a sidecar forward in status, followed by its selector.
const SIDECAR: &str = "sidecar";
/// Length in bytes up to which a selector is spelled out; a longer one is replaced by its hash.
const LONGEST_SELECTOR: usize = 100;

/// `sidecar app=shop`, with the selector as `kubectl get --selector` takes it.
fn sidecar_words(selector: &Selector) -> String {
    let values = |all: &[crds::LabelValue]| all.iter().map(|value| value.0.as_str()).collect::<Vec<_>>().join(",");
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={}", value.0));
    let expressions = selector.match_expressions.iter().map(|item| match item.operator {
        crds::SelectorOperator::In => format!("{} in ({})", item.key, values(&item.values)),
        crds::SelectorOperator::NotIn => format!("{} notin ({})", item.key, values(&item.values)),
        crds::SelectorOperator::Exists => item.key.clone(),
        crds::SelectorOperator::DoesNotExist => format!("!{}", item.key),
    });
    let words: Vec<String> = labels.chain(expressions).collect();
    let words = words.join(",");
    match words.len() {
        0 => SIDECAR.to_owned(),
        1..=LONGEST_SELECTOR => format!("{SIDECAR} {words}"),
        _ => format!("{SIDECAR} #{:016x}", hash(&words)),
    }
}

fn placement(forward: &PortForward, key: &Origin, found: &mut Violations) -> Option<Placement> {
    match (&forward.spec.placement.sidecar, &forward.spec.placement.gateway) {
        (Some(sidecar), None) => Some(Placement::Sidecar(sidecar.selector.clone())),
        (None, Some(gateway)) => {
            let namespace = gateway.namespace.clone().unwrap_or_else(|| key.namespace.clone());
            Some(Placement::Gateway(ObjectKey::new(namespace, gateway.name.clone())))
        }
        _ => {
            found.add("spec.placement", "exactly one of sidecar and gateway must be set");
            None
        }
    }
}

fn listener(
    item: &Listener,
    path: &str,
    held: &[ListenerStatus],
    key: &Origin,
    in_gateway: bool,
    found: &mut Violations,
) -> ValidListener {
    match item.port {
        Some(0) => found.add(format!("{path}.port"), "must be 1 to 65535"),
        None if !in_gateway => {
            found.add(format!("{path}.port"), "is required in a sidecar: only a gateway allocates ports");
        }
        _ => {}
    }
    if item.backends.is_empty() || item.backends.len() > 16 {
        found.add(format!("{path}.backends"), "must have 1 to 16 items");
    }
    let mut backends: Vec<ValidBackend> = Vec::new();
    for (at, entry) in item.backends.iter().enumerate() {
        let Some(to) = destination(entry, key) else {
            found.add(
                format!("{path}.backends[{at}]"),
                "exactly one of service, address and local must be set, with a port of 1 to 65535",
            );
            continue;
        };
        if in_gateway && matches!(to, Destination::Local { .. }) {
            found.add(format!("{path}.backends[{at}].local"), "needs placement.sidecar");
        }
        let (weight, priority) = (entry.weight.unwrap_or(1), entry.priority.unwrap_or(0));
        // Sessions and metrics identify backends by destination, so duplicates are merged and their weights added.
        match backends.iter_mut().find(|other| other.to == to) {
            Some(other) => {
                other.weight = other.weight.saturating_add(weight);
                other.priority = other.priority.min(priority);
            }
            None => backends.push(ValidBackend { weight, priority, to }),
        }
    }
    ValidListener {
        name: item.name.clone(),
        transport: transport(item.protocol),
        port: item.port,
        further: ports::further(item, path, found),
        names: ports::names(item, path, found),
        held: Held::of(item, held),
        bind: item.bind.map(|bind| match bind {
            crds::Bind::Loopback => Bind::Loopback,
            crds::Bind::All => Bind::All,
        }),
        backends,
        policy: policy(item),
        proxy_protocol: guard::proxy_protocol(item, path, found),
        health_check: health::check(item, path, found),
        outlier: outlier(item),
    }
}

fn outlier(item: &Listener) -> Outlier {
    Outlier {
        consecutive_failures: item.outlier.as_ref().and_then(|o| o.consecutive_failures).unwrap_or(5).max(1),
        eject_seconds: item.outlier.as_ref().and_then(|o| o.eject_seconds).unwrap_or(30),
    }
}

pub(crate) fn transport(protocol: crds::Protocol) -> Transport {
    match protocol {
        crds::Protocol::Tcp | crds::Protocol::Tls => Transport::Tcp,
        crds::Protocol::Udp => Transport::Udp,
    }
}

fn policy(item: &Listener) -> Policy {
    match item.load_balancing.as_ref().and_then(|balancing| balancing.policy) {
        None | Some(crds::LoadBalancingPolicy::RoundRobin) => Policy::RoundRobin,
        Some(crds::LoadBalancingPolicy::LeastConnections) => Policy::LeastConnections,
        Some(crds::LoadBalancingPolicy::Random) => Policy::Random,
        Some(crds::LoadBalancingPolicy::SourceHash) => Policy::SourceHash,
    }
}

fn destination(entry: &Backend, key: &Origin) -> Option<Destination> {
    let to = match (&entry.service, &entry.address, &entry.local) {
        (Some(service), None, None) => Destination::Service {
            key: ObjectKey::new(
                service.namespace.clone().unwrap_or_else(|| key.namespace.clone()),
                service.name.clone(),
            ),
            port: service.port,
        },
        (None, Some(address), None) => {
            Destination::Address { host: address.host.trim_end_matches('.').to_ascii_lowercase(), port: address.port }
        }
        (None, None, Some(local)) => Destination::Local { port: local.port },
        _ => return None,
    };
    let port = match to {
        Destination::Service { port, .. } | Destination::Address { port, .. } | Destination::Local { port } => port,
    };
    (port != 0).then_some(to)
}

fn timeouts(spec: Option<&crds::Timeouts>) -> Timeouts {
    let spec = spec.cloned().unwrap_or_default();
    let idle_seconds = spec.idle_seconds.unwrap_or(3600);
    Timeouts {
        connect_seconds: spec.connect_seconds.unwrap_or(5),
        idle_seconds,
        half_close_seconds: spec.half_close_seconds.unwrap_or_else(|| cmp::min(300, idle_seconds)),
        udp_idle_seconds: spec.udp_idle_seconds.unwrap_or(60),
        keepalive_seconds: spec.keepalive_seconds.unwrap_or(60),
        handshake_seconds: spec.handshake_seconds,
        max_session_seconds: spec.max_session_seconds,
    }
}

fn retry(spec: Option<&crds::Retry>) -> Retry {
    let spec = spec.cloned().unwrap_or_default();
    let initial =
        spec.initial_backoff_millis.unwrap_or_else(|| cmp::min(50, spec.max_backoff_millis.unwrap_or(u32::MAX)));
    Retry {
        attempts: spec.attempts.unwrap_or(3).max(1),
        initial_backoff_millis: initial,
        max_backoff_millis: spec.max_backoff_millis.unwrap_or_else(|| cmp::max(2000, initial)),
    }
}

fn sessions(spec: Option<&crds::Sessions>) -> Sessions {
    let spec = spec.cloned().unwrap_or_default();
    Sessions {
        on_update: match spec.on_update.unwrap_or_default() {
            crds::OnUpdate::Keep => proxy_api::OnUpdate::Keep,
            crds::OnUpdate::Drain => proxy_api::OnUpdate::Drain,
            crds::OnUpdate::Close => proxy_api::OnUpdate::Close,
        },
        on_unhealthy: match spec.on_unhealthy.unwrap_or_default() {
            crds::OnUnhealthy::Keep => proxy_api::OnUnhealthy::Keep,
            crds::OnUnhealthy::Close => proxy_api::OnUnhealthy::Close,
        },
        drain_seconds: spec.drain_seconds.unwrap_or(300),
    }
}

fn access_log(spec: Option<&crds::AccessLog>) -> proxy_api::AccessLog {
    let spec = spec.cloned().unwrap_or_default();
    proxy_api::AccessLog {
        mode: match spec.mode.unwrap_or_default() {
            AccessLogMode::Disabled => proxy_api::AccessLogMode::Disabled,
            AccessLogMode::Close => proxy_api::AccessLogMode::Close,
            AccessLogMode::OpenAndClose => proxy_api::AccessLogMode::OpenAndClose,
        },
        interval_seconds: spec.interval_seconds.unwrap_or(0),
    }
}
