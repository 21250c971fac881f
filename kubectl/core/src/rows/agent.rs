//! An agent in one line.

use crds::{AgentInstance, Condition, ForwardAgent, ForwardAgentStatus};
use serde::Serialize;

use super::{UNREPORTED, condition, outcome, words};
use crate::{check::Outcome, remedy};

/// The conditions that `Ready` of an agent summarizes.
const PARTS: [&str; 3] = ["Accepted", "Enrolled", "Connected"];

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// Namespace of the agent.
    pub namespace: String,
    /// Name of the agent.
    pub name: String,
    /// Whether the agent needs attention.
    pub outcome: Outcome,
    /// Status of the condition `Ready`; empty while no operator has reported.
    pub ready: String,
    /// Reason of the condition `Ready`.
    pub reason: String,
    /// The conditions that are not true; if the agent is ready but deserves attention, the reason.
    pub message: String,
    /// The next step, if there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Namespace and name of the gateway that the agent dials; empty if it names none.
    pub gateway: String,
    /// Connected instances.
    pub instances: Vec<AgentInstance>,
}

/// The row of an agent.
pub fn agent(agent: &ForwardAgent) -> AgentRow {
    let status = agent.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready");
    let is_current = status.observed_generation == agent.metadata.generation;
    let mut outcome = outcome(ready, is_current);
    let [ready_status, reason, mut message] = words(ready, is_current);
    let why = if outcome == Outcome::Ok { concerns(&status) } else { unmet(&status) };
    if is_current && !why.is_empty() {
        (outcome, message) = (outcome.max(Outcome::Warning), why.join("; "));
    }
    let hint = (outcome != Outcome::Ok).then(|| match ready {
        Some(ready) => remedy::of_agent(agent, &ready.reason),
        None => UNREPORTED.to_owned(),
    });
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let dialled = agent.spec.gateway.as_ref();
    let gateway = dialled.map(|it| format!("{}/{}", it.namespace.as_ref().unwrap_or(&namespace), it.name));
    AgentRow {
        gateway: gateway.unwrap_or_default(),
        namespace,
        name: agent.metadata.name.clone().unwrap_or_default(),
        outcome,
        ready: ready_status,
        reason,
        message,
        hint,
        instances: status.instances,
    }
}

/// The conditions that are not true, without those that follow from another one.
fn unmet(status: &ForwardAgentStatus) -> Vec<String> {
    let found = PARTS.iter().filter_map(|type_| condition(&status.conditions, type_));
    let unmet = found.filter(|found| found.status != "True" && found.reason != "NotAccepted");
    unmet.map(in_words).collect()
}

/// Problems that deserve attention although `Ready` is true: one instance that is connected to one proxy is enough for
/// `Ready`.
fn concerns(status: &ForwardAgentStatus) -> Vec<String> {
    let is_suspended = condition(&status.conditions, "Ready").is_some_and(|ready| ready.reason == "Suspended");
    if is_suspended {
        return Vec::new();
    }
    let enrolled = condition(&status.conditions, "Enrolled").filter(|enrolled| enrolled.status == "False");
    let instances = status.instances.iter().flat_map(|instance| {
        let proxies = lacks(&instance.name, &instance.carriers, "proxies");
        let sidecars = instance.sidecars.as_ref().and_then(|sidecars| lacks(&instance.name, sidecars, "sidecars"));
        proxies.into_iter().chain(sidecars)
    });
    enrolled.map(in_words).into_iter().chain(instances).collect()
}

/// Describes an instance that is connected to too few proxies or sidecars; `None` if `connected` is a fraction such as
/// 3/3.
fn lacks(instance: &str, connected: &str, to: &str) -> Option<String> {
    let (some, all) = connected.split_once('/').filter(|(some, all)| some != all)?;
    Some(format!("instance {instance} is connected to {some} of {all} {to}"))
}

fn in_words(condition: &Condition) -> String {
    format!("{}: {}", condition.reason, condition.message)
}
