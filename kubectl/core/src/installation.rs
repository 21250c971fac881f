//! Checks of an installation: CRDs, operators, and the objects that API servers need to call an operator.

mod operator;

use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment, coordination::v1::Lease,
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use operator_core::world::schema::{Lack, lacks};
use serde_json::Value;

use crate::{
    access::{Fetched, Listed, note},
    check::Check,
    time::{age, seconds},
};

pub use self::operator::Operator;

/// Label selector of the Deployments that are searched for operators.
pub const OPERATORS: &str = "app.kubernetes.io/component=operator";
/// The finding for a cluster that serves no kind of Portlane.
pub const MISSING: &str = "the cluster has no PortForwards: the CRDs are missing";
/// The next step for a cluster without the CRDs, or with those of another release.
pub const INSTALL: &str =
    "install the chart portlane-crds: helm upgrade --install portlane-crds charts/portlane-crds --namespace portlane";
/// Most seconds by which a Lease may be overdue: the time of a request, and rounding.
const LATE: i64 = 5;

/// An operator, and the objects that belong to it.
#[derive(Clone, Debug)]
pub struct OperatorFacts {
    /// The operator as its Deployment describes it.
    pub operator: Operator,
    /// The Deployment.
    pub deployment: Deployment,
    /// The Lease of the leader election; `None` if it does not exist.
    pub lease: Fetched<Option<Lease>>,
    /// The configuration of the webhook, if the operator has one; the inner `None` if it does not exist.
    pub webhook: Option<Fetched<Option<MutatingWebhookConfiguration>>>,
    /// The endpoints of the Service that proxies and API servers connect to.
    pub endpoints: Fetched<Listed<EndpointSlice>>,
    /// The registration of the metrics API, if the operator serves one; the inner `None` if it does not exist.
    pub metrics: Option<Fetched<Option<APIService>>>,
    /// The registration of the live API, in the same form.
    pub live: Option<Fetched<Option<APIService>>>,
}

/// Compares the schemas that an API server publishes with those of this program, which has version `program`. `None`:
/// the API server serves no kind of Portlane.
pub fn crds(program: &str, published: &Fetched<Option<Value>>) -> Check {
    const NAME: &str = "CRDs";
    let published = match published {
        Err(why) => return Check::unknown(NAME, why),
        Ok(None) => return Check::failed(NAME, MISSING).hint(INSTALL),
        Ok(Some(published)) => published,
    };
    let own = match crds::crds() {
        Ok(own) => own,
        Err(error) => return Check::failed(NAME, format!("cannot generate the schemas of this program: {error}")),
    };
    let lacking: Vec<Lack> =
        lacks(own.iter().map(|crd| &crd.document), published).into_iter().filter(|lack| lack.count > 0).collect();
    let is_missing = |lack: &&Lack| lack.fields.iter().any(|field| field == "spec");
    let missing: Vec<&str> = lacking.iter().filter(is_missing).map(|lack| lack.kind.as_str()).collect();
    if !missing.is_empty() {
        return Check::failed(NAME, format!("the CRD of {} is missing", missing.join(" and "))).hint(INSTALL);
    }
    if lacking.is_empty() {
        return Check::ok(NAME, format!("they have every field of version {program}"));
    }
    let lack = |Lack { kind, count, fields, .. }: &Lack| format!("{kind} lacks {count} ({})", fields.join(", "));
    let all = lacking.iter().map(lack).collect::<Vec<_>>().join("; ");
    let detail = format!("they lack fields of version {program}, which the API server drops from manifests: {all}");
    Check::warning(NAME, detail).hint(INSTALL)
}

/// Checks whether any operator was found, and that there is only one. `place` is the searched namespace.
pub fn found(operators: &Fetched<Listed<Deployment>>, place: &str) -> Option<Check> {
    const NAME: &str = "operator";
    let deployments = match operators {
        Ok(listed) => &listed.items,
        Err(why) => return Some(Check::unknown(NAME, why).hint("name its namespace with --operator-namespace")),
    };
    let found: Vec<String> =
        deployments.iter().filter_map(Operator::read).map(|it| format!("{}/{}", it.namespace, it.name)).collect();
    match found.as_slice() {
        [] => Some(
            Check::failed(NAME, format!("no Deployment{place} is an operator of Portlane"))
                .hint("install the chart portlane, or name the namespace of the operator with --operator-namespace"),
        ),
        [_] => None,
        more => Some(
            Check::warning(NAME, format!("several operators are installed: {}", more.join(", ")))
                .hint("look at one of them with --operator-namespace"),
        ),
    }
}

/// All checks of one operator, at this time by the clock of the API server.
pub fn checks(facts: &OperatorFacts, program: &str, now: Timestamp) -> Vec<Check> {
    let operator = &facts.operator;
    let answers = !facts.endpoints.as_ref().is_ok_and(|listed| ready(&listed.items).0 == 0);
    let mut checks = vec![deployment(operator, &facts.deployment), version(operator, program)];
    checks.push(leader(operator, &facts.lease, now));
    checks.push(endpoints(operator, &facts.endpoints));
    checks.push(facts.webhook.as_ref().map_or_else(
        || Check::ok("webhook", "not installed: no pod gets a sidecar by itself (injection.enabled is false)"),
        |webhook| webhook_check(operator, webhook, answers),
    ));
    let readers = [("metrics API", "HPAs", &facts.metrics), ("live API", "people", &facts.live)];
    let registered = readers.into_iter().filter_map(|(name, readers, api)| Some((name, readers, api.as_ref()?)));
    checks.extend(registered.map(|(name, readers, api)| aggregated(name, readers, api)));
    checks
}

fn deployment(operator: &Operator, deployment: &Deployment) -> Check {
    const NAME: &str = "operator";
    let title = format!("Deployment {}/{}", operator.namespace, operator.name);
    let look = operator.kubectl(&format!("describe deployment {}", operator.name));
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    if wanted == 0 {
        let scale = operator.kubectl(&format!("scale deployment {} --replicas=2", operator.name));
        return Check::failed(
            NAME,
            format!("{title} has no replicas: proxies keep running, but changes to forwards have no effect"),
        )
        .hint(scale);
    }
    let detail = format!("{title} has {available} of {wanted} replicas available");
    match available {
        ..=0 => Check::failed(NAME, detail).hint(look),
        some if some < wanted => Check::warning(NAME, detail).hint(look),
        _ => Check::ok(NAME, detail),
    }
}

fn version(operator: &Operator, program: &str) -> Check {
    const NAME: &str = "version";
    match operator.version.as_deref() {
        Some(version) if version == program => Check::ok(NAME, format!("operator and this program are {program}")),
        Some(version) => Check::warning(NAME, format!("the operator is {version}, and this program is {program}"))
            .hint("use the program of the operator's release"),
        None => Check::warning(NAME, "the Deployment has no label app.kubernetes.io/version"),
    }
}

fn leader(operator: &Operator, lease: &Fetched<Option<Lease>>, now: Timestamp) -> Check {
    const NAME: &str = "leader";
    let title = format!("Lease {}/{}", operator.namespace, operator.lease);
    let logs = operator.kubectl(&format!("logs deployment/{}", operator.name));
    let lease = match lease {
        Err(why) => return Check::unknown(NAME, why),
        Ok(None) => return Check::failed(NAME, format!("{title} does not exist: no replica has led yet")).hint(logs),
        Ok(Some(lease)) => lease.spec.as_ref(),
    };
    let holder = lease.and_then(|lease| lease.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let renewed = lease.and_then(|lease| lease.renew_time.as_ref());
    let (Some(holder), Some(renewed)) = (holder, renewed) else {
        return Check::failed(NAME, format!("{title} has no holder: no replica leads")).hint(logs);
    };
    // The identity is the name of the pod and the time of its start.
    let holder = holder.rsplit_once('_').map_or(holder, |(pod, _)| pod);
    let (since, lasts) = (seconds(renewed.0, now), lease.and_then(|lease| lease.lease_duration_seconds).unwrap_or(0));
    if since > i64::from(lasts).saturating_add(LATE) {
        let detail = format!("{title} has lapsed: {holder} renewed it {} ago", age(since));
        return Check::failed(NAME, detail).hint(logs);
    }
    Check::ok(NAME, format!("{holder} leads, and renewed its Lease {} ago", age(since)))
}

fn endpoints(operator: &Operator, slices: &Fetched<Listed<EndpointSlice>>) -> Check {
    const NAME: &str = "Service";
    let title = format!("Service {}/{}", operator.namespace, operator.service);
    match slices {
        Err(why) => Check::unknown(NAME, why),
        Ok(listed) => match ready(&listed.items) {
            (0, _) => {
                Check::failed(NAME, format!("{title} has no ready endpoint: proxies and API servers reach no operator"))
                    .hint(
                        operator
                            .kubectl(&format!("get endpointslices -l kubernetes.io/service-name={}", operator.service)),
                    )
            }
            (1, _) => Check::ok(NAME, format!("{title} has 1 ready endpoint")),
            (ready, _) => Check::ok(NAME, format!("{title} has {ready} ready endpoints")),
        },
    }
}

/// Ready endpoints, and all endpoints. An endpoint without the condition is ready.
pub fn ready(slices: &[EndpointSlice]) -> (usize, usize) {
    let endpoints = || slices.iter().flat_map(|slice| &slice.endpoints);
    let is_ready = |conditions: &k8s_openapi::api::discovery::v1::EndpointConditions| conditions.ready != Some(false);
    let ready = endpoints().filter(|endpoint| endpoint.conditions.as_ref().is_none_or(is_ready)).count();
    (ready, endpoints().count())
}

/// The check of the webhook. `answers` says that the Service has a ready endpoint, or that its endpoints are unknown.
fn webhook_check(operator: &Operator, webhook: &Fetched<Option<MutatingWebhookConfiguration>>, answers: bool) -> Check {
    const NAME: &str = "webhook";
    let title = format!("MutatingWebhookConfiguration {}", operator.webhook.as_deref().unwrap_or_default());
    let entries = match webhook {
        Err(why) => return Check::unknown(NAME, why),
        Ok(None) => {
            return Check::failed(NAME, format!("{title} does not exist: no new pod gets a sidecar"))
                .hint("install the chart again: helm upgrade portlane charts/portlane");
        }
        Ok(Some(webhook)) => webhook.webhooks.as_deref().unwrap_or_default(),
    };
    let has_bundle = |entry: &&k8s_openapi::api::admissionregistration::v1::MutatingWebhook| {
        entry.client_config.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty())
    };
    let (trusted, all) = (entries.iter().filter(has_bundle).count(), entries.len());
    if all == 0 || trusted < all {
        let detail =
            format!("{title} has a CA bundle in {trusted} of {all} entries: API servers do not trust the webhook");
        return Check::failed(NAME, detail).hint(format!(
            "the leader writes it: {}",
            operator.kubectl(&format!("logs deployment/{}", operator.name))
        ));
    }
    if !answers {
        let ignores = entries.iter().all(|entry| entry.failure_policy.as_deref() == Some("Ignore"));
        let effect = if ignores {
            "start without a sidecar (failurePolicy: Ignore)"
        } else {
            "are refused (failurePolicy: Fail)"
        };
        return Check::failed(NAME, format!("no operator answers it: new pods that need a sidecar {effect}"))
            .hint("correct the Service above; then create pods without a sidecar again: kubectl rollout restart");
    }
    Check::ok(NAME, format!("{title} has a CA bundle in each entry"))
}

/// The check of an aggregated API, with the programs that use it.
fn aggregated(name: &str, readers: &str, service: &Fetched<Option<APIService>>) -> Check {
    const LIST: &str = "kubectl get apiservices";
    let service = match service {
        Err(why) => return Check::unknown(name, why),
        Ok(None) => {
            return Check::failed(name, format!("it is not registered, so {readers} cannot read it")).hint(LIST);
        }
        Ok(Some(service)) => service,
    };
    let look = format!("kubectl describe apiservice {}", service.metadata.name.as_deref().unwrap_or_default());
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Available") {
        Some(condition) if condition.status == "True" => Check::ok(name, format!("{readers} can read it")),
        Some(condition) => {
            let message = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("no reason is given");
            Check::failed(name, format!("the API server cannot reach it: {message}")).hint(look)
        }
        None => Check::failed(name, "the API server has not tried to reach it yet").hint(look),
    }
}

/// Returns the note about the list of operators, if it needs one.
pub fn notes(operators: &Fetched<Listed<Deployment>>) -> Option<String> {
    operators.as_ref().ok().and_then(|_| note(operators, "Deployments"))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::check::Outcome;

    fn read<T: DeserializeOwned>(text: &str) -> T {
        serde_yaml::from_str(text).expect("an object")
    }

    fn operator() -> Operator {
        Operator {
            namespace: "portlane".to_owned(),
            name: "op".to_owned(),
            version: Some("1".to_owned()),
            lease: "lease".to_owned(),
            service: "svc".to_owned(),
            webhook: Some("hook".to_owned()),
            serves_metrics: false,
            serves_live: false,
            proxy_image: None,
        }
    }

    #[test]
    fn a_deployment_is_as_well_as_its_replicas() {
        for (replicas, available, outcome, words) in [
            (0, 0, Outcome::Failed, "has no replicas"),
            (2, 0, Outcome::Failed, "0 of 2 replicas"),
            (2, 1, Outcome::Warning, "1 of 2 replicas"),
            (2, 2, Outcome::Ok, "2 of 2 replicas"),
        ] {
            let text = format!("{{spec: {{replicas: {replicas}}}, status: {{availableReplicas: {available}}}}}");
            let check = deployment(&operator(), &read(&text));
            assert!(check.outcome == outcome && check.detail.contains(words), "{check:?}");
        }
    }

    #[test]
    fn a_reader_learns_that_the_list_of_operators_is_cut() {
        let listed = |is_cut| Ok(Listed { items: vec![Deployment::default()], is_cut });
        assert_eq!(notes(&listed(true)).as_deref(), Some("only the first 1 Deployments were read"));
        assert_eq!(notes(&listed(false)), None);
    }

    #[test]
    fn an_operator_of_another_version_deserves_attention() {
        assert_eq!(
            (version(&operator(), "1").outcome, version(&operator(), "2").outcome),
            (Outcome::Ok, Outcome::Warning)
        );
        let unknown = version(&Operator { version: None, ..operator() }, "1");
        assert!(unknown.outcome == Outcome::Warning && unknown.detail.contains("no label"), "{unknown:?}");
    }

    #[test]
    fn a_lease_has_lapsed_five_seconds_after_its_duration() {
        let text =
            "{spec: {holderIdentity: op-1_a, leaseDurationSeconds: 12, renewTime: '1970-01-01T00:00:00.000000Z'}}";
        let at = |second: i64| {
            let now = Timestamp::from_second(second).expect("a time");
            leader(&operator(), &Ok(Some(read(text))), now).outcome
        };
        assert_eq!((at(17), at(18)), (Outcome::Ok, Outcome::Failed));
    }

    #[test]
    fn an_endpoint_without_a_condition_is_ready() {
        let slices: Vec<EndpointSlice> = read(
            "[{endpoints: [{addresses: [a]}, {addresses: [b], conditions: {ready: false}}]}, \
             {endpoints: [{addresses: [c], conditions: {ready: true}}, {addresses: [d], conditions: {}}]}]",
        );
        assert_eq!(ready(&slices), (3, 4));
        let detail = |slices: &[EndpointSlice]| endpoints(&operator(), &Ok(Listed::from(slices.to_vec()))).detail;
        assert!(detail(&slices).ends_with("has 3 ready endpoints") && detail(&[]).contains("has no ready endpoint"));
        assert!(detail(&slices[..1]).ends_with("has 1 ready endpoint"), "{}", detail(&slices[..1]));
    }

    #[test]
    fn a_webhook_is_trusted_in_each_of_its_entries_and_answered() {
        let (good, bad) =
            ("{clientConfig: {caBundle: 'QQ=='}, failurePolicy: Ignore}", "{clientConfig: {caBundle: ''}}");
        let strict = good.replace("Ignore", "Fail");
        let check = |entries: &[&str], answers: bool| {
            let found = Ok(Some(read(&format!("{{webhooks: [{}]}}", entries.join(", ")))));
            let check = webhook_check(&operator(), &found, answers);
            (check.outcome, check.detail)
        };
        let is = |(outcome, detail): (Outcome, String), expected: Outcome, words: &str| {
            assert!(outcome == expected && detail.contains(words), "{detail}");
        };
        is(check(&[good, good], true), Outcome::Ok, "has a CA bundle in each entry");
        is(check(&[good, bad], true), Outcome::Failed, "in 1 of 2 entries");
        is(check(&["{clientConfig: {}}"], true), Outcome::Failed, "in 0 of 1 entries");
        is(check(&[], true), Outcome::Failed, "in 0 of 0 entries");
        is(check(&[good, good], false), Outcome::Failed, "start without a sidecar");
        is(check(&[good, &strict], false), Outcome::Failed, "are refused");
    }

    #[test]
    fn an_aggregated_api_is_one_that_the_api_server_reaches() {
        let check = |conditions: &str| {
            let found = Ok(Some(read(&format!("{{metadata: {{name: a}}, status: {{conditions: [{conditions}]}}}}"))));
            let check = aggregated("live API", "people", &found);
            (check.outcome, check.detail)
        };
        let other = "{type: Other, status: 'False'}";
        let (outcome, detail) = check(&format!("{other}, {{type: Available, status: 'True'}}"));
        assert_eq!((outcome, detail.as_str()), (Outcome::Ok, "people can read it"));
        let (outcome, detail) = check("{type: Available, status: 'False', reason: R, message: no route}");
        assert_eq!((outcome, detail.as_str()), (Outcome::Failed, "the API server cannot reach it: no route"));
        let (outcome, detail) = check(other);
        assert!(outcome == Outcome::Failed && detail.starts_with("the API server has not tried"), "{detail}");
    }
}
