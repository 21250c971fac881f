//! `docs/conditions.md` has every reason that the core writes, and no others. `docs/troubleshooting.md` says what to do
//! about each of them that needs a person, `docs/gitops.md` which of them are `Stalled`.

use std::{collections::BTreeSet, fs, path::Path};

use crds::PortForward;
use operator_core::{
    Condition, DataPlane, FleetFacts, Moment, ObjectKey, Reason, Verdict, gateway_status, status,
    status::{
        agent::{AgentFacts, Enrolment, agent_status},
        instances::Instance,
    },
};
use serde_json::json;

const PAGE: &str = include_str!("../../../../docs/conditions.md");
const REMEDIES: &str = include_str!("../../../../docs/troubleshooting.md");

/// Reasons that need no person.
const FINE: [&str; 15] = [
    "Accepted",
    "BackendsHealthy",
    "Connected",
    "DeliveryFlowing",
    "Draining",
    "Enrolled",
    "InPod",
    "InStream",
    "Injected",
    "OnClaim",
    "Programmed",
    "Ready",
    "ResolvedRefs",
    "ScaledOut",
    "ScalingActive",
];
const GITOPS: &str = include_str!("../../../../docs/gitops.md");

/// Every reason of `Accepted=False` and `ResolvedRefs=False`, and whether it belongs to the latter.
const UNMET: [(Reason, bool); 13] = [
    (Reason::Invalid, false),
    (Reason::Unsupported, false),
    (Reason::PortConflict, false),
    (Reason::HostnameConflict, false),
    (Reason::GatewayNotFound, false),
    (Reason::NotAllowedByGateway, false),
    (Reason::NoPortAvailable, false),
    (Reason::TooManyPorts, false),
    (Reason::QuotaExceeded, false),
    (Reason::BackendNotFound, true),
    (Reason::RefNotPermitted, true),
    (Reason::AddressNotAllowed, true),
    (Reason::BackendLoop, true),
];

/// Where reasons of conditions and Events are written: files and folders of `src`.
const SOURCES: [&str; 6] = [
    "translate/verdict.rs",
    "status",
    "schedule/children.rs",
    "schedule/autoscalers.rs",
    "desired/autoscaler.rs",
    "desired/holder.rs",
];

/// Types and values of conditions, which no file but this one names as text.
const TYPES: &str = "status/conditions.rs";

/// Words in these sources that look like a reason: kinds, and other words of an HPA.
const OTHERS: [&str; 9] = [
    "Apply",
    "AverageValue",
    "FailedGetObjectMetric",
    "FailedGetPodsMetric",
    "ForwardGateway",
    "HorizontalPodAutoscaler",
    "Pod",
    "Pods",
    "PortForward",
];

#[test]
fn the_page_of_conditions_has_every_reason_and_no_others() {
    let (written, on_page) = (written(), on_page(PAGE));
    assert!(written.len() > 40, "too few reasons are found: {written:?}");
    let missing: Vec<_> = written.difference(&on_page).collect();
    let unknown: Vec<_> = on_page.difference(&written).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:?}; on the page only: {unknown:?}");
}

#[test]
fn every_reason_that_needs_a_person_has_a_remedy() {
    let needs: BTreeSet<String> = on_page(PAGE).into_iter().filter(|reason| !FINE.contains(&reason.as_str())).collect();
    let has = on_page(REMEDIES);
    let missing: Vec<_> = needs.difference(&has).collect();
    let unknown: Vec<_> = has.difference(&needs).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "no remedy: {missing:?}; a remedy for nothing: {unknown:?}");
}

/// The reasons in the tables of a page: the cells below the head `reason`.
fn on_page(page: &str) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    let mut column = None;
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 3 {
            column = None;
        }
        column = cells.iter().position(|cell| *cell == "reason").or(column);
        if let Some(reason) = column.and_then(|at| cells.get(at)).filter(|cell| is_reason(cell)) {
            reasons.insert((*reason).to_owned());
        }
    }
    reasons
}

/// The texts in the sources that are one CamelCase word.
fn written() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let types = src.join(TYPES);
    let mut reasons = BTreeSet::new();
    for source in SOURCES.map(|source| src.join(source)) {
        if source.is_file() {
            reasons.extend(words(&source));
            continue;
        }
        for entry in fs::read_dir(&source).expect("a folder") {
            let file = entry.expect("an entry").path();
            if file.is_file() && file != types {
                reasons.extend(words(&file));
            }
        }
    }
    reasons
}

/// The texts of a file, without its tests, that are one CamelCase word.
fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a source file");
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    let texts = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    texts.filter(|text| is_reason(text) && !OTHERS.contains(text)).map(str::to_owned).collect()
}

/// Whether a text has the form of a reason: one word that begins with a capital letter.
fn is_reason(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().all(char::is_alphanumeric)
}

/// Whether the page says that kstatus calls this reason of a kind `Failed`, which it does exactly if `Stalled` is true.
fn is_failed_on_page(kind: &str, reason: &str) -> bool {
    let below = GITOPS.lines().skip_while(|line| *line != format!("### Of a {kind}")).skip(1);
    let mut rows = below.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let row = rows.find(|row| row.split(['|', ',']).any(|cell| cell.trim() == reason));
    let row = row.unwrap_or_else(|| panic!("docs/gitops.md has no health of a {kind} with {reason}"));
    row.ends_with("| Failed |")
}

#[test]
fn a_forward_is_stalled_exactly_if_the_page_calls_its_reason_failed() {
    let forward = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"placement": {}, "listeners": []}});
    let forward: PortForward = serde_json::from_value(forward).expect("a forward");
    for (reason, is_of_refs) in UNMET {
        let met = |reason| Condition { status: true, reason, message: String::new() };
        let unmet = Condition { status: false, reason, message: "why".to_owned() };
        let (accepted, resolved_refs) =
            if is_of_refs { (met(Reason::Accepted), unmet) } else { (unmet, met(Reason::ResolvedRefs)) };
        let verdict = Verdict {
            accepted,
            resolved_refs,
            listeners: Vec::new(),
            placement: String::new(),
            groups: Vec::new(),
            rejected: Vec::new(),
            warnings: Vec::new(),
        };
        let status = status(&forward, &verdict, &DataPlane::default(), &Moment::default());
        let is_stalled = status.conditions.iter().any(|condition| condition.type_ == "Stalled");
        assert_eq!(is_stalled, is_failed_on_page("PortForward", reason.as_str()), "{}", reason.as_str());
    }
}

#[test]
fn a_gateway_is_stalled_exactly_if_the_page_calls_its_reason_failed() {
    let running = FleetFacts { applied: true, replicas: 1, ready: 1, ..FleetFacts::default() };
    let refused = |reason: &str| FleetFacts { refused: Some((reason.to_owned(), String::new())), ..running.clone() };
    let cases = [
        (1, "Ready", running.clone()),
        (1, "Pending", FleetFacts::default()),
        (1, "NoProxies", FleetFacts { ready: 0, ..running.clone() }),
        (0, "ScaledToZero", running.clone()),
        (1, "ChildrenFailed", FleetFacts { children: Some("why".to_owned()), ..running.clone() }),
        (1, "Unsupported", refused("Unsupported")),
        (1, "FleetsNotPermitted", refused("FleetsNotPermitted")),
    ];
    for (replicas, reason, facts) in cases {
        let gateway = json!({"metadata": {"name": "edge", "namespace": "ns"}, "spec": {"replicas": replicas}});
        let gateway = serde_json::from_value(gateway).expect("a gateway");
        let conditions = gateway_status(&gateway, &facts, "2026-01-01T00:00:00Z").conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").expect("Ready");
        assert_eq!(ready.reason, reason);
        let is_stalled = conditions.iter().any(|condition| condition.type_ == "Stalled");
        assert_eq!(is_stalled, is_failed_on_page("ForwardGateway", reason), "{reason}");
    }
}

#[test]
fn an_agent_is_stalled_exactly_if_the_page_calls_its_reason_failed() {
    let running = AgentFacts {
        admitted: Ok(ObjectKey::new("ns", "edge")),
        warning: None,
        left_out: 0,
        enrolment: Some(Enrolment { enrolled: 1, ..Enrolment::default() }),
        connected: Some(vec![Instance::default()]),
        ready: 1,
        sidecars: 0,
    };
    let nobody = AgentFacts { connected: Some(Vec::new()), ..running.clone() };
    let offered = Enrolment { secret: Some("home-enrolment".to_owned()), left: 1, ..Enrolment::default() };
    let failed = Enrolment { failure: Some("why".to_owned()), ..Enrolment::default() };
    let mut cases = vec![
        ("Ready", running.clone()),
        ("Pending", AgentFacts { connected: None, ..running.clone() }),
        ("NotConnected", nobody.clone()),
        ("NotEnrolled", AgentFacts { enrolment: Some(offered), ..nobody.clone() }),
        ("EnrolmentFailed", AgentFacts { enrolment: Some(failed), ..nobody }),
    ];
    let refusals = [
        Reason::Invalid,
        Reason::Unsupported,
        Reason::GatewayNotFound,
        Reason::NotAllowedByGateway,
        Reason::QuotaExceeded,
    ];
    cases.extend(refusals.map(|reason| {
        let why = Condition { status: false, reason, message: "why".to_owned() };
        (reason.as_str(), AgentFacts { admitted: Err(why), ..running.clone() })
    }));
    let agent = json!({"metadata": {"name": "home", "namespace": "ns"}, "spec": {"targets": []}});
    let agent = serde_json::from_value(agent).expect("an agent");
    for (reason, facts) in cases {
        let conditions = agent_status(&agent, &facts, "2026-01-01T00:00:00Z").conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").expect("Ready");
        assert_eq!(ready.reason, reason);
        let is_stalled = conditions.iter().any(|condition| condition.type_ == "Stalled");
        assert_eq!(is_stalled, is_failed_on_page("ForwardAgent", reason), "{reason}");
    }
}
