//! `kubectl portlane status`: an installation, its gateways, its agents and its forwards.

mod sessions;

pub use self::sessions::counted;

use std::collections::BTreeSet;

use crds::{ForwardAgent, ForwardGateway, PortForward};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};
use operator_core::names::{PROXY_LABEL, SIDECAR_IMAGE};
use serde::Serialize;
use serde_json::Value;

use crate::{
    access::{Fetched, Listed, Place, items, note},
    check::{Check, Outcome},
    describe::pods::has_ended,
    installation::{self, OperatorFacts},
    live::Reading,
    placement::{container, key},
    rows::{self, AgentRow, ForwardRow, GatewayRow},
};

/// Most pods, or images, that a check names; further pods are counted.
const NAMED: usize = 5;

/// The objects that were read from the cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of this program.
    pub program: String,
    /// Time by the clock of the API server.
    pub now: Timestamp,
    /// Schemas that the API server publishes for the kinds of Portlane; `None`: it serves none.
    pub published: Fetched<Option<Value>>,
    /// The namespaces that were searched for operators.
    pub place: Place,
    /// The Deployments that were searched for operators.
    pub deployments: Fetched<Listed<Deployment>>,
    /// The operators among these Deployments, with their objects.
    pub operators: Vec<OperatorFacts>,
    /// Pods with a proxy.
    pub proxies: Fetched<Listed<Pod>>,
    /// Gateways.
    pub gateways: Fetched<Listed<ForwardGateway>>,
    /// Agents.
    pub agents: Fetched<Listed<ForwardAgent>>,
    /// Forwards.
    pub forwards: Fetched<Listed<PortForward>>,
    /// Numbers of sessions, as far as they could be read.
    pub sessions: Vec<Reading>,
}

/// The state of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this program.
    pub program: String,
    /// Checks of the installation.
    pub checks: Vec<Check>,
    /// Gateways, by namespace and name.
    pub gateways: Vec<GatewayRow>,
    /// Agents, by namespace and name.
    pub agents: Vec<AgentRow>,
    /// Forwards, by namespace and name.
    pub forwards: Vec<ForwardRow>,
    /// Notes about objects that could not be read, or not completely.
    pub notes: Vec<String>,
}

/// The overall result of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing has failed.
    Ok,
    /// A check has failed, or a gateway, an agent or a forward is not ready.
    Failed,
    /// No part that could be checked has failed, but some could not be checked.
    Incomplete,
}

impl Report {
    /// The overall result. A failure counts, whichever other parts could not be checked.
    pub fn verdict(&self) -> Verdict {
        let checks = self.checks.iter().map(|check| check.outcome);
        let outcomes: Vec<Outcome> = checks.chain(self.rows()).collect();
        if outcomes.contains(&Outcome::Failed) {
            Verdict::Failed
        } else if outcomes.contains(&Outcome::Unknown) || !self.notes.is_empty() {
            Verdict::Incomplete
        } else {
            Verdict::Ok
        }
    }

    /// The results of the rows of all tables.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Outcome> {
        let gateways = self.gateways.iter().map(|row| row.outcome);
        let agents = self.agents.iter().map(|row| row.outcome);
        gateways.chain(agents).chain(self.forwards.iter().map(|row| row.outcome))
    }
}

/// Makes the report from the objects that were read.
pub fn report(facts: &Facts) -> Report {
    let mut checks = vec![installation::crds(&facts.program, &facts.published)];
    checks.extend(installation::found(&facts.deployments, &facts.place.to_string()));
    for operator in &facts.operators {
        checks.extend(installation::checks(operator, &facts.program, facts.now));
    }
    // With several operators, it is unknown which one a pod belongs to.
    if let [only] = facts.operators.as_slice()
        && let Some(image) = only.operator.proxy_image.as_deref()
    {
        checks.extend(fleets(image, items(&facts.proxies)));
        checks.push(sidecars(image, items(&facts.proxies)));
    }
    let mut gateways: Vec<GatewayRow> = items(&facts.gateways).iter().map(rows::gateway).collect();
    gateways.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut agents: Vec<AgentRow> = items(&facts.agents).iter().map(rows::agent).collect();
    agents.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let totals = sessions::totals(&facts.sessions);
    let forward = |forward: &PortForward| {
        let sessions = totals.get(&key(forward)).copied();
        ForwardRow { sessions, ..rows::forward(forward) }
    };
    let mut forwards: Vec<ForwardRow> = items(&facts.forwards).iter().map(forward).collect();
    forwards.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let notes = [
        installation::notes(&facts.deployments),
        note(&facts.proxies, "pods with a proxy"),
        note(&facts.gateways, "ForwardGateways"),
        note(&facts.agents, "ForwardAgents"),
        note(&facts.forwards, "PortForwards"),
    ];
    let sessions = sessions::notes(&facts.operators, &facts.forwards, &facts.sessions);
    let notes = notes.into_iter().flatten().chain(sessions).collect();
    Report { program: facts.program.clone(), checks, gateways, agents, forwards, notes }
}

/// Checks that the pods of fleets run the image of the operator. `None`: there are no such pods. During a rollout, and
/// while a fleet is pinned or waits for its turn, some run another image.
fn fleets(image: &str, pods: &[Pod]) -> Option<Check> {
    const NAME: &str = "fleets";
    let fleets: Vec<&Pod> = pods.iter().filter(|pod| is_alive(pod, "gateway")).collect();
    let (other, all) = (others(image, &fleets), fleets.len());
    if other.is_empty() {
        return (all > 0).then(|| Check::ok(NAME, format!("{all} of {all} pods run the image of the operator")));
    }
    let images: BTreeSet<&str> = other.iter().filter_map(|pod| runs(pod)).collect();
    let detail = format!(
        "{} of {all} pods run another image ({}) than the operator has ({image}): {}",
        other.len(),
        named(images.into_iter().map(str::to_owned)),
        named(other.iter().map(|pod| name(pod)))
    );
    Some(Check::warning(NAME, detail).hint("the operator replaces them: the gateways below say why some wait"))
}

/// Checks that sidecars run the image that the operator gives to new pods: only a restart of a pod replaces its sidecar.
fn sidecars(image: &str, pods: &[Pod]) -> Check {
    const NAME: &str = "sidecars";
    let sidecars: Vec<&Pod> = pods.iter().filter(|pod| is_alive(pod, "sidecar") && !has_own_image(pod)).collect();
    let (other, all) = (others(image, &sidecars), sidecars.len());
    if other.is_empty() {
        return Check::ok(NAME, format!("{all} pods have one, all with the image of the operator"));
    }
    let named = named(other.iter().map(|pod| name(pod)));
    let detail = format!("{} of {all} run another image than the operator gives to new pods: {named}", other.len());
    Check::warning(NAME, detail).hint("create the pods again: kubectl rollout restart")
}

/// The pods whose proxy has another image than this one.
fn others<'a>(image: &str, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    pods.iter().copied().filter(|pod| runs(pod).is_some_and(|runs| runs != image)).collect()
}

/// The first names, and whether there are more.
fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names.take(NAMED).collect::<Vec<_>>().join(", "))
}

/// Whether a pod has a proxy of this role, and neither ends nor has ended.
fn is_alive(pod: &Pod, role: &str) -> bool {
    let metadata = &pod.metadata;
    let has_role = metadata.labels.as_ref().and_then(|labels| labels.get(PROXY_LABEL)).is_some_and(|it| it == role);
    has_role && metadata.deletion_timestamp.is_none() && !has_ended(pod)
}

/// Whether a pod chooses the image of its sidecar.
fn has_own_image(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(SIDECAR_IMAGE))
}

/// The image of a pod's proxy.
fn runs(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.find(|found| found.name == container(pod))?.image.as_deref()
}

fn name(pod: &Pod) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

#[cfg(test)]
mod tests {
    use operator_core::names::CONTAINER;
    use serde_json::json;

    use super::*;

    /// A pod of the sidecar placement whose proxy has this image, with more metadata and this phase.
    fn pod(number: usize, image: &str, (key, value): (&str, serde_json::Value), phase: &str) -> Pod {
        let mut metadata =
            json!({"namespace": "shop", "name": format!("p{number}"), "labels": {PROXY_LABEL: "sidecar"}});
        metadata[key] = value;
        let spec = json!({"containers": [], "initContainers": [{"name": CONTAINER, "image": image}]});
        let pod = json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}});
        serde_json::from_value(pod).expect("a pod")
    }

    fn none() -> (&'static str, serde_json::Value) {
        ("annotations", json!({}))
    }

    #[test]
    fn only_living_sidecars_whose_image_the_operator_chooses_are_compared() {
        let pods = [
            pod(0, "old", ("labels", json!({PROXY_LABEL: "gateway"})), "Running"),
            pod(1, "old", ("annotations", json!({SIDECAR_IMAGE: "old"})), "Running"),
            pod(2, "old", ("deletionTimestamp", json!("2026-01-01T00:00:00Z")), "Running"),
            pod(3, "old", none(), "Succeeded"),
            pod(4, "old", none(), "Failed"),
            pod(5, "new", none(), "Running"),
        ];
        let it = sidecars("new", &pods);
        let all = "1 pods have one, all with the image of the operator";
        assert_eq!((it.outcome, it.detail.as_str()), (Outcome::Ok, all));
    }

    #[test]
    fn five_old_sidecars_are_named_and_the_rest_is_counted() {
        let pods = |count| (0..count).map(|at| pod(at, "old", none(), "Running")).collect::<Vec<_>>();
        let old = |count| sidecars("new", &pods(count)).detail;
        let (five, six) = (old(5), old(6));
        assert!(five.starts_with("5 of 5 run another image") && five.ends_with("shop/p3, shop/p4"), "{five}");
        assert!(six.starts_with("6 of 6 run another image") && six.ends_with("shop/p4, …"), "{six}");
    }

    #[test]
    fn living_pods_of_fleets_are_compared_with_the_image_of_the_operator() {
        let of_fleet = |number: usize, image: &str, phase: &str| {
            let mut pod = pod(number, "", ("labels", json!({PROXY_LABEL: "gateway"})), phase);
            let spec = json!({"containers": [{"name": "proxy", "image": image}]});
            pod.spec = Some(serde_json::from_value(spec).expect("a spec"));
            pod
        };
        let sidecar = || pod(9, "old", none(), "Running");
        assert_eq!(fleets("new", &[sidecar(), of_fleet(0, "old", "Failed")]), None);
        let found = |pods: &[Pod]| fleets("new", pods).map(|it| (it.outcome, it.detail));
        let (new, old) = (of_fleet(0, "new", "Running"), of_fleet(1, "old", "Running"));
        let all = (Outcome::Ok, "1 of 1 pods run the image of the operator".to_owned());
        assert_eq!(found(&[new.clone(), sidecar()]), Some(all));
        let some = "1 of 2 pods run another image (old) than the operator has (new): shop/p1".to_owned();
        assert_eq!(found(&[new, old]), Some((Outcome::Warning, some)));
    }
}
