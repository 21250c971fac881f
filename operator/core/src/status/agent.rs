//! The status of an agent, from its spec, the state of its Secret, and the instances that are connected.

use crds::{AgentInstance, Condition as StatusCondition, ForwardAgent, ForwardAgentStatus};

use crate::{
    status::{
        conditions::{ConditionType, Finding, Truth, conditions},
        instances::Instance,
    },
    translate::{
        sidecars::MOST_OF_AGENT,
        verdict::{Condition, Reason},
    },
    world::ObjectKey,
};

/// Most instances that a status names; the CRD has the same bound.
const NAMED: usize = 16;
/// Longest name or version of an instance in a status, in characters; the CRD has the same bound.
const LONGEST: usize = 63;

/// The enrolment of an agent's instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// Name of the Secret with the join string; absent while there is none.
    pub secret: Option<String>,
    /// Number of instances that have enrolled since the last rotation.
    pub enrolled: u32,
    /// The number of further instances that the join string can enrol.
    pub left: u32,
    /// The reason why the join string has to wait.
    pub awaited: Option<String>,
    /// Why the Secret cannot be written.
    pub failure: Option<String>,
}

/// The facts about an agent.
#[derive(Clone, Debug)]
pub struct AgentFacts {
    /// The gateway that takes the agent, or why none does.
    pub admitted: Result<ObjectKey, Condition>,
    /// A problem that does not keep the agent from being accepted, but that its author should know.
    pub warning: Option<String>,
    /// Number of pods with sidecars of the agent's forwards that the agent does not reach.
    pub left_out: usize,
    /// The enrolment of the agent's instances; absent until the leader knows it.
    pub enrolment: Option<Enrolment>,
    /// The connected instances by name; absent until the proxies of the gateway had time to report.
    pub connected: Option<Vec<Instance>>,
    /// Number of ready proxies of the gateway.
    pub ready: usize,
    /// Number of sidecars that the agent reaches.
    pub sidecars: usize,
}

/// Computes the status of an agent. `now` is RFC 3339.
#[must_use]
pub fn agent_status(agent: &ForwardAgent, facts: &AgentFacts, now: &str) -> ForwardAgentStatus {
    let generation = agent.metadata.generation;
    let empty = ForwardAgentStatus::default();
    let old = agent.status.as_ref().unwrap_or(&empty);
    let is_suspended = agent.spec.suspend.unwrap_or(false);
    let accepted = accepted(facts, is_suspended);
    let enrolled = enrolled(facts);
    let connected = connected(&old.conditions, facts, is_suspended);
    let ready = ready(&accepted, &enrolled, &connected, is_suspended);
    let is_lasting = |why: &&Condition| why.reason != Reason::GatewayNotFound;
    let stalled = facts.admitted.as_ref().err().filter(is_lasting);
    let stalled =
        stalled.map(|why| Finding::new(ConditionType::Stalled, Truth::True, why.reason.as_str(), why.message.clone()));
    let reconciling = (ready.status == Truth::Unknown)
        .then(|| Finding::new(ConditionType::Reconciling, Truth::True, &ready.reason, ready.message.clone()));
    let findings = [Some(accepted), Some(enrolled), Some(connected), Some(ready), reconciling, stalled];
    ForwardAgentStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, findings.into_iter().flatten().collect(), generation, now),
        enrolment_secret: facts.enrolment.as_ref().and_then(|enrolment| enrolment.secret.clone()),
        instances: match &facts.connected {
            Some(connected) => connected.iter().take(NAMED).map(|instance| named(instance, facts)).collect(),
            None => old.instances.clone(),
        },
    }
}

/// An instance in the form of status.
fn named(instance: &Instance, facts: &AgentFacts) -> AgentInstance {
    let text = |text: &str| text.chars().take(LONGEST).collect();
    let carriers = format!("{}/{}", instance.carriers, facts.ready.max(instance.carriers));
    let sidecars = (facts.sidecars > 0).then(|| format!("{}/{}", instance.sidecars, facts.sidecars));
    AgentInstance { name: text(&instance.name), version: text(&instance.version), carriers, sidecars }
}

fn accepted(facts: &AgentFacts, is_suspended: bool) -> Finding {
    let gateway = match &facts.admitted {
        Ok(gateway) => gateway,
        Err(why) => return Finding::of(ConditionType::Accepted, why),
    };
    let left_out = (facts.left_out > 0).then(|| {
        format!(
            "the agent is not connected to {} with sidecars of its forwards: an agent connects to at most the \
             {MOST_OF_AGENT} oldest pods, and to fewer if its gateway is full or its namespace has used up its share \
             of the gateway; place these forwards on ForwardGateway {gateway}",
            proxy_api::count(facts.left_out as u64, "pod")
        )
    });
    let warnings = facts.warning.iter().chain(&left_out);
    let warning = warnings.fold(String::new(), |all, warning| all + "; warning: " + warning);
    if is_suspended {
        let message = format!("suspended by spec.suspend: no instance may connect{warning}");
        return Finding::new(ConditionType::Accepted, Truth::True, "Suspended", message);
    }
    let message = format!("the spec is valid, and ForwardGateway {gateway} admits the agent{warning}");
    Finding::new(ConditionType::Accepted, Truth::True, "Accepted", message)
}

fn enrolled(facts: &AgentFacts) -> Finding {
    let finding =
        |status, reason: &str, message: String| Finding::new(ConditionType::Enrolled, status, reason, message);
    let Some(enrolment) = &facts.enrolment else {
        return if facts.admitted.is_err() {
            finding(Truth::False, "NotAccepted", "no instance can enrol: the agent is not accepted".to_owned())
        } else {
            finding(Truth::Unknown, "Pending", "the join string has not been issued yet".to_owned())
        };
    };
    let Enrolment { secret, enrolled, left, awaited, failure } = enrolment;
    if *enrolled > 0 {
        let others = match failure.as_ref().or(awaited.as_ref()) {
            Some(why) => format!("no further instance can enrol now: {why}"),
            None => format!("{left} more may enrol"),
        };
        let instances = proxy_api::count(u64::from(*enrolled), "instance");
        return finding(Truth::True, "Enrolled", format!("{instances} enrolled; {others}"));
    }
    if let Some(why) = failure {
        return finding(Truth::False, "EnrolmentFailed", why.clone());
    }
    if let Some(what) = awaited {
        return finding(Truth::Unknown, "Pending", what.clone());
    }
    match secret {
        Some(secret) if *left > 0 => {
            let message = format!(
                "no instance has enrolled yet: start portlane agent with the join string of Secret {secret} (key join)"
            );
            finding(Truth::False, "NotEnrolled", message)
        }
        _ => finding(Truth::Unknown, "Pending", "the join string is being replaced".to_owned()),
    }
}

fn connected(old: &[StatusCondition], facts: &AgentFacts, is_suspended: bool) -> Finding {
    let finding =
        |status, reason: &str, message: String| Finding::new(ConditionType::Connected, status, reason, message);
    if facts.admitted.is_err() {
        return finding(Truth::False, "NotAccepted", "no instance may connect: the agent is not accepted".to_owned());
    }
    if is_suspended {
        return finding(Truth::False, "Suspended", "spec.suspend is set: no instance may connect".to_owned());
    }
    match &facts.connected {
        Some(connected) if connected.is_empty() => {
            let message = "no instance is connected: see the log of portlane agent where it runs".to_owned();
            finding(Truth::False, "NotConnected", message)
        }
        Some(connected) => {
            let instances = proxy_api::count(connected.len() as u64, "instance");
            finding(Truth::True, "Connected", format!("{instances} connected"))
        }
        // A new leader has no reports of instances yet: the condition in status stays.
        None => {
            let before = old.iter().find(|condition| condition.type_ == ConditionType::Connected.as_str());
            before.map_or_else(
                || finding(Truth::Unknown, "Pending", "the proxies of the gateway have not reported yet".to_owned()),
                |before| finding(Truth::parse(&before.status), &before.reason, before.message.clone()),
            )
        }
    }
}

fn ready(accepted: &Finding, enrolled: &Finding, connected: &Finding, is_suspended: bool) -> Finding {
    let finding = |status, reason: &str, message: &str| Finding::new(ConditionType::Ready, status, reason, message);
    if accepted.status == Truth::True && is_suspended {
        return finding(Truth::True, "Suspended", &accepted.message);
    }
    // A connected instance needs no join string.
    let unmet = match (accepted.status, connected.status, enrolled.status) {
        (Truth::True, Truth::True, _) => {
            return finding(Truth::True, "Ready", "forwards reach the targets through the agent");
        }
        (Truth::True, _, Truth::True) => connected,
        (Truth::True, ..) => enrolled,
        _ => accepted,
    };
    finding(unmet.status, &unmet.reason, &unmet.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings for an enrolment.
    fn found(enrolment: Enrolment) -> Finding {
        let facts = AgentFacts {
            admitted: Ok(ObjectKey::new("ns", "edge")),
            warning: None,
            left_out: 0,
            enrolment: Some(enrolment),
            connected: None,
            ready: 1,
            sidecars: 0,
        };
        enrolled(&facts)
    }

    #[test]
    fn a_join_string_that_waits_for_an_address_is_no_failure_and_the_status_says_for_what() {
        let waiting = Enrolment { left: 1, awaited: Some("waits".to_owned()), ..Enrolment::default() };
        let Finding { status, reason, message, .. } = found(waiting);
        assert_eq!((status, reason.as_str(), message.as_str()), (Truth::Unknown, "Pending", "waits"));
    }

    #[test]
    fn the_status_says_why_nobody_else_can_enrol() {
        let enrolment = Enrolment { enrolled: 1, left: 1, ..Enrolment::default() };
        let failing = Enrolment { failure: Some("the Secret is not ours".to_owned()), ..enrolment.clone() };
        let waiting = Enrolment { awaited: Some("waits".to_owned()), ..enrolment.clone() };
        for (enrolment, expected) in [
            (enrolment, "1 more may enrol"),
            (failing, "the Secret is not ours"),
            (waiting, "no further instance can enrol now: waits"),
        ] {
            let found = found(enrolment);
            assert_eq!(found.status, Truth::True, "the certificate that is there counts");
            assert!(found.message.ends_with(expected), "{}", found.message);
        }
    }

    #[test]
    fn a_join_string_that_enrols_nobody_else_is_being_replaced() {
        for (left, expected) in [(1, (Truth::False, "NotEnrolled")), (0, (Truth::Unknown, "Pending"))] {
            let found = found(Enrolment { secret: Some("s".to_owned()), left, ..Enrolment::default() });
            assert_eq!((found.status, found.reason.as_str()), expected, "{left} are left");
        }
    }

    /// Type, status and reason of each condition of an agent after `Connected`.
    fn sum(facts: &AgentFacts) -> Vec<String> {
        let agent = ForwardAgent::new("home", crds::ForwardAgentSpec::default());
        let conditions = agent_status(&agent, facts, "2026-01-01T00:00:00Z").conditions;
        conditions.iter().skip(3).map(|it| format!("{} {} {}", it.type_, it.status, it.reason)).collect()
    }

    #[test]
    fn an_agent_is_as_ready_as_what_it_lacks_and_stalled_if_only_a_person_can_help() {
        let enrolment = |enrolled: u32| Some(Enrolment { enrolled, ..Enrolment::default() });
        let instance = Instance { name: "pi4".to_owned(), ..Instance::default() };
        let facts = |admitted, enrolment, instances: &[Instance]| AgentFacts {
            admitted,
            warning: None,
            left_out: 0,
            enrolment,
            connected: Some(instances.to_vec()),
            ready: 1,
            sidecars: 0,
        };
        let gateway = || Ok(ObjectKey::new("ns", "edge"));
        assert_eq!(sum(&facts(gateway(), enrolment(0), std::slice::from_ref(&instance))), ["Ready True Ready"]);
        assert_eq!(sum(&facts(gateway(), enrolment(1), &[])), ["Ready False NotConnected"]);
        assert_eq!(
            sum(&facts(gateway(), enrolment(0), &[])),
            ["Ready Unknown Pending", "Reconciling True Pending"],
            "its join string is being replaced"
        );
        let refused = |reason| Err(Condition::unmet(reason, "why".to_owned()));
        assert_eq!(
            sum(&facts(refused(Reason::QuotaExceeded), None, &[])),
            ["Ready False QuotaExceeded", "Stalled True QuotaExceeded"]
        );
        assert_eq!(
            sum(&facts(refused(Reason::GatewayNotFound), None, &[])),
            ["Ready False GatewayNotFound"],
            "the gateway may be applied after it"
        );
    }

    #[test]
    fn a_new_leader_repeats_what_the_status_says_of_instances_until_proxies_report() {
        let mut agent = ForwardAgent::new("home", crds::ForwardAgentSpec::default());
        let instance = Instance { name: "pi4".to_owned(), carriers: 1, ..Instance::default() };
        let reported = AgentFacts {
            admitted: Ok(ObjectKey::new("ns", "edge")),
            warning: None,
            left_out: 0,
            enrolment: Some(Enrolment { enrolled: 1, ..Enrolment::default() }),
            connected: Some(vec![instance]),
            ready: 1,
            sidecars: 0,
        };
        let now = "2026-01-01T00:00:00Z";
        let first = agent_status(&agent, &reported, now);
        agent.status = Some(first.clone());
        let next = agent_status(&agent, &AgentFacts { connected: None, ..reported }, now);
        assert_eq!((next.conditions, next.instances), (first.conditions, first.instances));
    }
}
