//! Events that report changes to a person.

use std::{collections::BTreeMap, time::Duration};

use crds::{BackendHealth, Delivery, ForwardGateway, ListenerStatus, PortForwardSpec};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};

use crate::{
    status::{
        conditions::{ConditionType, Truth},
        rollout::{REMEDY, STOPPED},
    },
    world::{
        ObjectKey,
        cache::{Cache, Grown},
        subject::Subject,
    },
};

/// Reason of an event: an HPA requires more replicas.
const SCALED_OUT: &str = "ScaledOut";
/// Reason of an event: backends became unhealthy.
const BACKENDS_UNHEALTHY: &str = "BackendsUnhealthy";
/// Reason of an event: backends are healthy again.
const BACKENDS_HEALTHY: &str = "BackendsHealthy";
/// Reason of an event: a proxy ended and cut live sessions.
const DRAIN_CUT: &str = "DrainCut";

/// Start and end of the path of a listener in its forward, in the form in which kubelet names containers.
const LISTENER: (&str, &str) = ("spec.listeners{", "}");

/// An event to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    /// The object that the event is about.
    pub object: ObjectReference,
    /// Whether the event is a warning; otherwise it is normal.
    pub warning: bool,
    /// The reason, one CamelCase word.
    pub reason: String,
    /// The change and the remedy, for a person.
    pub note: String,
}

impl Happened {
    /// Whether the event is also sent as a notice: warnings and growth are.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.warning || self.reason == SCALED_OUT
    }

    /// Name of the listener that the event is about; absent if the event is about the whole object.
    #[must_use]
    pub fn listener(&self) -> Option<&str> {
        self.object.field_path.as_deref()?.strip_prefix(LISTENER.0)?.strip_suffix(LISTENER.1)
    }
}

/// Reasons that the rest of a rollout may resolve: a new forward that is not ready for one of these reasons gets no
/// event.
const TRANSIENT: [&str; 4] = ["GatewayNotFound", "BackendNotFound", "RefNotPermitted", NO_PROXIES];
/// Reason of a forward whose gateway has no ready proxy.
const NO_PROXIES: &str = "NoProxies";

/// The object that an event is about.
#[must_use]
pub fn reference(kind: &str, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", crds::GROUP, crds::VERSION)),
        kind: Some(kind.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

fn ready(conditions: &[crds::Condition]) -> Option<&crds::Condition> {
    conditions.iter().find(|it| it.type_ == ConditionType::Ready.as_str())
}

/// The reason why a forward is not ready; absent if the forward is ready.
#[must_use]
pub fn unready_reason(conditions: &[crds::Condition]) -> Option<&str> {
    ready(conditions).filter(|it| it.status != Truth::True.as_str()).map(|it| it.reason.as_str())
}

/// Whether a forward is unready because its gateway has no ready proxy.
#[must_use]
pub fn lacks_proxies(conditions: &[crds::Condition]) -> bool {
    ready(conditions).is_some_and(|it| it.reason == NO_PROXIES)
}

/// Whether a forward, at `now` (RFC 3339), has been unready for `lasting` and is so because its gateway has no ready
/// proxy.
#[must_use]
pub fn has_lacked_proxies(conditions: &[crds::Condition], lasting: Duration, now: &str) -> bool {
    let seconds = |time: &str| time.parse::<Timestamp>().map(Timestamp::as_second);
    let lasted = |since: &str| {
        // An unreadable time counts as long past.
        let (Ok(since), Ok(now)) = (seconds(since), seconds(now)) else { return true };
        u64::try_from(now.saturating_sub(since)).is_ok_and(|lasted| lasted >= lasting.as_secs())
    };
    lacks_proxies(conditions) && ready(conditions).is_some_and(|it| lasted(&it.last_transition_time))
}

/// Returns the event of a forward whose gateway has had no ready proxy for longer than a fleet takes to start.
/// `reported` is that of [`of_ready`].
pub fn of_no_proxies(
    object: &ObjectReference,
    new: &[crds::Condition],
    reported: &mut Option<(String, String)>,
) -> Option<Happened> {
    let now = ready(new).filter(|it| it.reason == NO_PROXIES)?;
    let news = Some((now.status.clone(), now.reason.clone()));
    if *reported == news {
        return None;
    }
    *reported = news;
    Some(Happened { object: object.clone(), warning: true, reason: now.reason.clone(), note: now.message.clone() })
}

/// Returns the event of a forward that becomes ready or unready, or is unready for another reason. `reported` holds
/// status and reason of the last event, because a retried status write must not repeat it.
pub fn of_ready(
    object: &ObjectReference,
    old: &[crds::Condition],
    new: &[crds::Condition],
    reported: &mut Option<(String, String)>,
) -> Option<Happened> {
    let now = ready(new)?.clone();
    let before = ready(old).cloned();
    // The objects that a new forward needs may be applied after it: the status reports what is missing, and an event
    // would be premature.
    let is_early = TRANSIENT.contains(&now.reason.as_str());
    if before.is_none() && is_early {
        return None;
    }
    // The fleet may be starting. If this lasts, `of_no_proxies` reports it.
    let was_ready = before.as_ref().is_some_and(|old| Truth::parse(&old.status) == Truth::True);
    if now.reason == NO_PROXIES && !was_ready {
        return None;
    }
    let status = Truth::parse(&now.status);
    if status == Truth::Unknown
        || before.is_some_and(|old| (old.status, old.reason) == (now.status.clone(), now.reason.clone()))
    {
        return None;
    }
    let news = Some((now.status.clone(), now.reason.clone()));
    if *reported == news {
        return None;
    }
    *reported = news;
    Some(Happened { object: object.clone(), warning: status == Truth::False, reason: now.reason, note: now.message })
}

/// Returns the events of an agent: whether its gateway takes it, that an instance has enrolled, and whether one is
/// connected. `reported` holds status and reason of each condition at the last write, because a retried status write
/// must not repeat its events.
pub fn of_agent(
    object: &ObjectReference,
    old: &[crds::Condition],
    new: &[crds::Condition],
    reported: &mut BTreeMap<String, (String, String)>,
) -> Vec<Happened> {
    let mut events = Vec::new();
    for now in new {
        let before = old.iter().find(|old| old.type_ == now.type_);
        let news = (now.status.clone(), now.reason.clone());
        let is_old = before.is_some_and(|old| (&old.status, &old.reason) == (&now.status, &now.reason));
        if is_old || reported.get(&now.type_) == Some(&news) {
            continue;
        }
        reported.insert(now.type_.clone(), news);
        if is_event_of_agent(before, now) {
            let warning = Truth::parse(&now.status) == Truth::False;
            let (reason, note) = (now.reason.clone(), now.message.clone());
            events.push(Happened { object: object.clone(), warning, reason, note });
        }
    }
    events
}

/// Whether the change of an agent's condition gets an event. An agent that was never started gets none, and an agent
/// that is suspended or not accepted gets one.
fn is_event_of_agent(before: Option<&crds::Condition>, now: &crds::Condition) -> bool {
    let is = |type_: ConditionType| now.type_ == type_.as_str();
    match Truth::parse(&now.status) {
        Truth::True if is(ConditionType::Accepted) => before.is_some() || now.reason == "Suspended",
        Truth::True => is(ConditionType::Enrolled) || is(ConditionType::Connected),
        Truth::False if is(ConditionType::Accepted) => before.is_some() || !TRANSIENT.contains(&now.reason.as_str()),
        Truth::False if is(ConditionType::Enrolled) => now.reason == "EnrolmentFailed",
        Truth::False => {
            let was_connected = before.is_some_and(|old| Truth::parse(&old.status) == Truth::True);
            is(ConditionType::Connected) && now.reason == "NotConnected" && was_connected
        }
        Truth::Unknown => false,
    }
}

/// Returns the events of listeners whose backends become unhealthy or healthy again. `old` are the listeners in the
/// present status. `reported` holds the health in the last event, by listener.
pub fn of_backends(
    object: &ObjectReference,
    old: &[ListenerStatus],
    new: &[ListenerStatus],
    reported: &mut BTreeMap<String, BackendHealth>,
) -> Vec<Happened> {
    let mut events = Vec::new();
    for now in new {
        // The last event counts, even if the health has been unknown since.
        let before = reported.get(&now.name).copied();
        let before = before.or_else(|| old.iter().find(|old| old.name == now.name).and_then(|old| old.backends));
        let (Some(now_is), before) = (now.backends, before.unwrap_or(BackendHealth::All)) else { continue };
        let rank = |health: BackendHealth| match health {
            BackendHealth::None => 0,
            BackendHealth::Some => 1,
            BackendHealth::All => 2,
        };
        if now_is == before {
            // An absent listener counts as healthy, as nearly all of tens of thousands are.
            if before != BackendHealth::All {
                reported.insert(now.name.clone(), now_is);
            }
            continue;
        }
        reported.insert(now.name.clone(), now_is);
        let warning = rank(now_is) < rank(before);
        let what = match now_is {
            BackendHealth::All => "every backend is healthy",
            BackendHealth::Some => "some backends are unhealthy; new sessions go to the healthy ones",
            BackendHealth::None => "no backend is healthy; new sessions still try all with a weight above 0",
        };
        let reason = if warning { BACKENDS_UNHEALTHY } else { BACKENDS_HEALTHY };
        let note = format!(
            "listener '{}': {what}; see the log and portlane_backend_endpoints_unhealthy of the proxy",
            now.name
        );
        events.push(Happened { object: of_listener(object, &now.name), warning, reason: reason.to_owned(), note });
    }
    events
}

/// Returns the events of durable listeners of `spec` whose delivery state changed; a worse state is a warning. `old` are
/// the listeners in the present status. `reported` holds the delivery state in the last event, by listener.
pub fn of_deliveries(
    object: &ObjectReference,
    spec: &PortForwardSpec,
    old: &[ListenerStatus],
    new: &[ListenerStatus],
    reported: &mut BTreeMap<String, Delivery>,
) -> Vec<Happened> {
    let mut events = Vec::new();
    for now in new {
        let Some(delivery) = now.delivery else { continue };
        // The last event counts, even if no proxy has reported since.
        let before = reported.get(&now.name).copied();
        let before = before.or_else(|| old.iter().find(|old| old.name == now.name).and_then(|old| old.delivery));
        let before = before.unwrap_or(Delivery::Flowing);
        reported.insert(now.name.clone(), delivery);
        if delivery == before {
            continue;
        }
        let (reason, what) = delivered(delivery, spec.has_stream(&now.name));
        let note = format!(
            "listener '{}': {what}; see the log and portlane_durable_oldest_age_seconds of the proxies",
            now.name
        );
        let object = of_listener(object, &now.name);
        events.push(Happened { object, warning: delivery > before, reason: reason.to_owned(), note });
    }
    events
}

/// The reason of an event about this delivery state, and the fate of the messages.
fn delivered(delivery: Delivery, is_in_stream: bool) -> (&'static str, &'static str) {
    match delivery {
        Delivery::Flowing => ("DeliveryFlowing", "messages are sent as they arrive"),
        Delivery::Behind => ("DeliveryBehind", "the oldest waiting message is older than 10 s"),
        Delivery::Stalled => ("DeliveryStalled", "messages wait, and the sink has accepted none for 30 s"),
        Delivery::Full => ("DeliveryFull", "messages are dropped or refused, because the log is full"),
        Delivery::StoreFailed => ("DeliveryStoreFailed", store_failed(is_in_stream)),
    }
}

/// What fails where messages are kept, and what helps.
const fn store_failed(is_in_stream: bool) -> &'static str {
    if is_in_stream {
        "the NATS server fails or refuses the proxies, so that messages are not safe: restore the server, or correct its \
         credentials"
    } else {
        "the disk fails or is full, so that messages are not safe: free space on it or replace it"
    }
}

/// A listener of this forward.
fn of_listener(object: &ObjectReference, name: &str) -> ObjectReference {
    let field_path = Some(format!("{}{name}{}", LISTENER.0, LISTENER.1));
    ObjectReference { field_path, ..object.clone() }
}

/// Returns the event of a proxy that ended and cut `cut` live sessions.
#[must_use]
pub fn of_cut(pod: &ObjectKey, cut: u64, cache: &Cache) -> Happened {
    let gateway = cache.pod(pod).and_then(|info| info.gateway.clone());
    let gateway = gateway.and_then(|name| cache.world.gateways.get(&ObjectKey::new(pod.namespace.clone(), name)));
    let object = match gateway {
        Some(gateway) => reference("ForwardGateway", &gateway.metadata),
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: cache.pod(pod).map(|info| info.uid.clone()),
            ..ObjectReference::default()
        },
    };
    let note = format!(
        "the proxy of pod {} ended and cut {} still live at the end of the drain; to give sessions more \
         time, raise spec.drainSeconds of the ForwardGateway (sidecar: terminationGracePeriodSeconds of the pod)",
        pod.name,
        proxy_api::count(cut, "session")
    );
    Happened { object, warning: true, reason: DRAIN_CUT.to_owned(), note }
}

/// Returns the event of an HPA that requires more replicas; `None` if the object is gone.
#[must_use]
pub fn of_growth(Grown { subject, from, to }: &Grown, cache: &Cache) -> Option<Happened> {
    let object = match subject {
        Subject::Forward(key) => {
            cache.world.forwards.get(key).map(|forward| reference("PortForward", &forward.metadata))
        }
        Subject::Gateway(key) => cache.world.gateways.get(key).map(|it| reference("ForwardGateway", &it.metadata)),
        // Nothing scales an agent.
        Subject::Agent(_) => None,
    };
    let note = format!("the load requires {to} replicas instead of {from}");
    Some(Happened { object: object?, warning: false, reason: SCALED_OUT.to_owned(), note })
}

/// Returns the event of a fleet whose new pods do not become ready.
#[must_use]
pub fn of_stopped(gateway: &ForwardGateway) -> Happened {
    let object = reference("ForwardGateway", &gateway.metadata);
    let note = format!("the rollout of the fleet has stopped, and outdated fleets wait for it: {REMEDY}");
    Happened { object, warning: true, reason: STOPPED.to_owned(), note }
}
