//! Decides who may have a certificate.

use crds::ForwardAgent;
use proxy_api::{Applicant, SignReason, SignRefusal};
use tunnel_core::{
    identity::{AgentIdentity, AgentName, EndpointId},
    join::Token,
    registry::{Policy, certifiable},
};

use super::{Wanted, refusal, wanted_by};
use crate::{
    names::{endpoint_id, sidecar_id},
    translate::{agents::Admissions, program::Snapshot},
    world::{ObjectKey, cache::Cache, carrier::Carrier, followers},
};

/// The certificate to sign for an applicant.
#[derive(Clone, Debug)]
pub enum Case {
    /// Sign the certificate of an endpoint.
    Endpoint(EndpointId),
    /// Sign the certificate of a sidecar, which agents of a gateway dial.
    Sidecar(EndpointId),
    /// Sign the next certificate of an agent.
    Agent(AgentIdentity),
    /// Redeem a token, and sign the first certificate of the agent.
    Token {
        /// The desired offer of the agent's Secret.
        wanted: Box<Wanted>,
        /// The token.
        token: Token,
    },
}

/// The decision on an applicant: the certificate to sign, and the root that signs it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Namespace of the gateway.
    pub gateway_namespace: String,
    /// Uid of the gateway, whose root signs.
    pub gateway_uid: String,
    /// The certificate to sign.
    pub case: Case,
}

/// Judges an applicant at a proxy. Proxies of a gateway with tunnels may apply for themselves and for the agents that
/// their gateway takes. A sidecar may apply only for itself, as a sidecar of a gateway whose agents its listeners
/// reach. `runs` is the configuration that the proxy should run.
///
/// # Errors
/// Why the applicant gets no certificate.
pub fn judge(
    cache: &Cache,
    proxy: followers::Applicant<'_>,
    applicant: &Applicant,
    runs: Option<&Snapshot>,
) -> Result<Judged, SignRefusal> {
    let gateway = match cache.carrier(proxy.pod, proxy.uid, proxy.service_account) {
        Carrier::Gateway(gateway) => gateway,
        Carrier::Sidecar => return of_sidecar(cache, proxy.uid, applicant, runs),
        Carrier::Unknown | Carrier::Unexpected(_) => {
            return Err(refusal(SignReason::Agent, "only proxies of a ForwardGateway and sidecars have tunnels"));
        }
    };
    let found = cache.world.gateways.get(&gateway).filter(|found| found.spec.tunnels.is_some());
    let Some(gateway_uid) = found.and_then(|found| found.metadata.uid.clone()) else {
        let detail = format!("ForwardGateway {gateway} has no spec.tunnels: ask its owner to set it");
        return Err(refusal(SignReason::Agent, detail));
    };
    let case = case(cache, (&gateway, proxy.uid), applicant)?;
    Ok(Judged { gateway_namespace: gateway.namespace, gateway_uid, case })
}

/// The decision on the sidecar in the pod of this uid.
fn of_sidecar(
    cache: &Cache,
    pod_uid: &str,
    applicant: &Applicant,
    runs: Option<&Snapshot>,
) -> Result<Judged, SignRefusal> {
    let Applicant::Sidecar { gateway: gateway_uid } = applicant else {
        return Err(refusal(SignReason::Agent, "a sidecar enrols no agents: only proxies of a ForwardGateway do"));
    };
    let admissions = Admissions::new(&cache.world);
    let agents = runs.into_iter().flat_map(|runs| runs.agents.values());
    let gateway = agents.filter(|agent| agent.gateway.as_ref() == Some(gateway_uid)).find_map(|agent| {
        let key = ObjectKey::new(agent.namespace.clone(), agent.name.clone());
        let gateway = admissions.of(&key, cache.world.agents.get(&key)?).ok()?;
        let found = cache.world.gateways.get(&gateway)?;
        (found.metadata.uid.as_ref() == Some(gateway_uid)).then_some(gateway)
    });
    let Some(gateway) = gateway else {
        let detail = format!(
            "no listener of the pod reaches an agent of the ForwardGateway with uid {gateway_uid}: check that the \
             ForwardAgent is accepted"
        );
        return Err(refusal(SignReason::Agent, detail));
    };
    let id = EndpointId::new(&sidecar_id(pod_uid, gateway_uid));
    let id = id.map_err(|why| refusal(SignReason::Agent, why.to_string()))?;
    Ok(Judged { gateway_namespace: gateway.namespace, gateway_uid: gateway_uid.clone(), case: Case::Sidecar(id) })
}

/// The decision on an applicant at a proxy of this gateway; `pod_uid` is the uid of its pod.
fn case(cache: &Cache, (gateway, pod_uid): (&ObjectKey, &str), applicant: &Applicant) -> Result<Case, SignRefusal> {
    match applicant {
        Applicant::Endpoint => {
            let id = EndpointId::new(&endpoint_id(pod_uid));
            id.map(Case::Endpoint).map_err(|why| refusal(SignReason::Agent, why.to_string()))
        }
        Applicant::Token { namespace, name, token } => {
            let unknown = || refusal(SignReason::Token, "the token is malformed: issue a new join string");
            let token = Token::from_text(token).ok_or_else(unknown)?;
            let key = ObjectKey::new(namespace.clone(), name.clone());
            // A client that has proved nothing gets the same answer for an agent that does not exist and for one at
            // another gateway.
            let not_here = || {
                let detail = format!(
                    "agent {key} cannot enrol here now: check that its ForwardAgent exists and is accepted, and that \
                     spec.gateway names this gateway"
                );
                refusal(SignReason::Agent, detail)
            };
            let wanted = at(cache, gateway, &key).ok_or_else(not_here)?;
            Ok(Case::Token { wanted: Box::new(wanted), token })
        }
        Applicant::Agent { namespace, name, uid, rotation } => {
            let claimed = AgentName::new(namespace, name).and_then(|agent| AgentIdentity::new(agent, uid, *rotation));
            let claimed = claimed.map_err(|why| refusal(SignReason::Agent, why.to_string()))?;
            let key = ObjectKey::new(namespace.clone(), name.clone());
            let wanted = at(cache, gateway, &key).ok_or_else(|| elsewhere(cache, gateway, &key, &claimed))?;
            permitted(&wanted, &claimed).map(Case::Agent)
        }
        Applicant::Sidecar { .. } => {
            Err(refusal(SignReason::Agent, "a proxy of a ForwardGateway is not a sidecar: it has its own certificate"))
        }
        Applicant::Unknown => {
            let detail = "this operator does not know this kind of applicant: upgrade the operator";
            Err(refusal(SignReason::Request, detail))
        }
    }
}

/// Returns the desired offer of the Secret of an agent that this gateway takes.
fn at(cache: &Cache, gateway: &ObjectKey, key: &ObjectKey) -> Option<Wanted> {
    let agent = cache.world.agents.get(key)?;
    let admissions = Admissions::new(&cache.world);
    let is_here = admissions.of(key, agent).is_ok_and(|taken| taken == *gateway);
    wanted_by(cache, &admissions, key).filter(|_| is_here)
}

/// Why this gateway does not take an agent, for the agent. A client that does not know the uid gets the same answer for
/// an agent at another gateway and for one that does not exist: otherwise a proxy could ask about the agents of others.
fn elsewhere(cache: &Cache, gateway: &ObjectKey, key: &ObjectKey, claimed: &AgentIdentity) -> SignRefusal {
    let is_it = |agent: &&ForwardAgent| agent.metadata.uid.as_deref() == Some(claimed.uid());
    let agent = cache.world.agents.get(key).filter(is_it);
    let detail = match agent.map(|agent| Admissions::new(&cache.world).of(key, agent)) {
        Some(Ok(other)) if other != *gateway => {
            format!("agent {key} dials ForwardGateway {other} now: enrol again with a new join string")
        }
        Some(Err(why)) => format!("agent {key} is not accepted: {}", why.message),
        Some(Ok(_)) | None => certifiable(claimed, None).err().map(|denied| denied.detail).unwrap_or_default(),
    };
    refusal(SignReason::Agent, detail)
}

/// The identity that the owner of a certificate or of a token gets now. The applicant never chooses the rotation: with
/// the largest number, it could never be revoked.
pub(super) fn permitted(wanted: &Wanted, claimed: &AgentIdentity) -> Result<AgentIdentity, SignRefusal> {
    let current = &wanted.identity;
    // A suspended agent gets its certificate, so that it need not enrol again afterwards.
    let policy = Policy { rotation: current.rotation(), suspended: false, is_newer: false, max_instances: 0 };
    let policy = Some(&policy).filter(|_| claimed.uid() == current.uid());
    certifiable(claimed, policy).map_err(|denied| refusal(SignReason::Agent, denied.detail))?;
    Ok(current.clone())
}
