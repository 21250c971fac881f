//! Enrolment of agents in a cluster: the contents of an agent's Secret, and who gets a certificate.
//!
//! ```text
//! agent, gateway ──wanted──▶ what its Secret should offer ──offer──▶ join string and ledger
//! request of a proxy ──judge──▶ case ──redeem, for a token──▶ identity to sign
//! ```
//!
//! The Secret of an agent is its child. It holds the join string, and the ledger of the tokens that were issued for it.
//! The shell writes the ledger before it answers.

mod age;
mod failing;
mod judge;
mod ledger;
mod roots;
mod secret;
mod unused;

use crds::{ForwardAgent, ForwardGateway, GatewayTunnels, ServiceType};
use proxy_api::{SignOutcome, SignReason, SignRefusal};
use tunnel_core::{
    identity::{AgentIdentity, AgentName},
    join::{ADDRESSES, Address},
};

pub use self::{
    age::RootAge,
    failing::Failing,
    judge::{Case, Judged, judge},
    ledger::{Kept, Offer, offer, redeem},
    roots::{NoPlace, ROOTS, place, root_key},
    secret::{Unusable, kept_in, secret_with},
    unused::{Looked, Unused},
};
pub use crate::names::endpoint_id;
use crate::{
    names::TUNNEL_PORT,
    status::agent::Enrolment,
    translate::agents::Admissions,
    world::{ObjectKey, cache::Cache},
};

/// Lifetime of the certificates of agents and of endpoints, seconds.
pub const LIFETIME: u64 = 7 * 24 * 3600;

/// The desired offer of an agent's Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The agent.
    pub key: ObjectKey,
    /// Namespace of the gateway that takes the agent.
    pub gateway_namespace: String,
    /// Uid of the gateway that takes the agent; join strings pin its root.
    pub gateway_uid: String,
    /// The identity of an instance that enrols.
    pub identity: AgentIdentity,
    /// The most instances that may enrol.
    pub redemptions: u32,
    /// The lifetime of a join string.
    pub expire_seconds: u32,
    /// The addresses at which agents reach the gateway.
    pub addresses: Result<Vec<Address>, NoAddress>,
}

/// Why the addresses of a gateway are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// The gateway will get an address.
    Awaited(String),
    /// The author of the gateway has to set an address.
    Missing(String),
}

/// The result of checking the Secret of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The agent.
    pub key: ObjectKey,
    /// Uid of the agent.
    pub uid: String,
    /// The state of the Secret, and the seconds until its join string must be replaced; or why the check failed.
    pub result: Result<(Enrolment, Option<u64>), String>,
}

impl Wanted {
    /// Name of the Secret.
    #[must_use]
    pub fn secret(&self) -> String {
        secret_of(&self.key.name)
    }
}

/// Name of the Secret of an agent.
#[must_use]
pub fn secret_of(agent: &str) -> String {
    format!("{agent}-enrolment")
}

/// Returns what the Secret of an agent should offer. Absent if the agent is gone, or no gateway of this operator takes
/// it.
#[must_use]
pub fn wanted(cache: &Cache, key: &ObjectKey) -> Option<Wanted> {
    wanted_by(cache, &Admissions::new(&cache.world), key)
}

/// Like [`wanted`], with the known admissions of the world's gateways.
pub(crate) fn wanted_by(cache: &Cache, admissions: &Admissions<'_>, key: &ObjectKey) -> Option<Wanted> {
    let agent = cache.world.agents.get(key)?;
    let gateway = admissions.of(key, agent).ok()?;
    let found = cache.world.gateways.get(&gateway)?;
    let tunnels = found.spec.tunnels.as_ref()?;
    let enrolment = agent.spec.enrolment.clone().unwrap_or_default();
    Some(Wanted {
        key: key.clone(),
        gateway_namespace: gateway.namespace.clone(),
        gateway_uid: found.metadata.uid.clone()?,
        identity: identity(key, agent)?,
        redemptions: enrolment.redemptions.unwrap_or(1),
        expire_seconds: enrolment.expire_seconds.unwrap_or(3600),
        addresses: addresses(cache, (&gateway, found), tunnels),
    })
}

/// The identity that an instance of the agent gets now. Absent if the object has no uid, or has names that its CRD does
/// not allow.
fn identity(key: &ObjectKey, agent: &ForwardAgent) -> Option<AgentIdentity> {
    let name = AgentName::new(&key.namespace, &key.name).ok()?;
    let rotation = agent.spec.enrolment.as_ref().and_then(|enrolment| enrolment.rotation).unwrap_or(0);
    AgentIdentity::new(name, agent.metadata.uid.as_deref()?, rotation).ok()
}

/// The addresses at which agents reach a gateway: those that it advertises, or else its load balancer's, or else its
/// Service's. A name that resolves nowhere does not count: a gateway that waits for its load balancer, or has no
/// Service, has no address.
fn addresses(
    cache: &Cache,
    (key, gateway): (&ObjectKey, &ForwardGateway),
    tunnels: &GatewayTunnels,
) -> Result<Vec<Address>, NoAddress> {
    let port = tunnels.port.unwrap_or(TUNNEL_PORT);
    if !tunnels.advertise.is_empty() {
        let parsed = tunnels.advertise.iter().map(|text| {
            text.parse::<Address>().map_err(|why| {
                NoAddress::Missing(format!("spec.tunnels.advertise of ForwardGateway {key} is not valid: {why}"))
            })
        });
        return parsed.collect();
    }
    let balanced = cache.balanced(key).iter().filter_map(|(_, host)| Address::new(host, port).ok());
    let balanced: Vec<Address> = balanced.take(ADDRESSES).collect();
    if !balanced.is_empty() {
        return Ok(balanced);
    }
    match gateway.spec.service.as_ref().and_then(|service| service.type_) {
        Some(ServiceType::LoadBalancer) => Err(NoAddress::Awaited(format!(
            "no join string can be issued until the load balancer of ForwardGateway {key} has an address: see the \
             events of its Service, or set spec.tunnels.advertise"
        ))),
        Some(ServiceType::None) => Err(NoAddress::Missing(format!(
            "ForwardGateway {key} has no Service, and the join string needs an address: set spec.tunnels.advertise"
        ))),
        Some(ServiceType::ClusterIP | ServiceType::NodePort) | None => {
            let host = format!("{}.{}.svc", key.name, key.namespace);
            Address::new(&host, port).map(|address| vec![address]).map_err(|why| NoAddress::Missing(why.to_string()))
        }
    }
}

/// The answer to a refused certificate request.
#[must_use]
pub fn refused(reason: SignReason, detail: impl Into<String>) -> SignOutcome {
    SignOutcome::Refused { refused: refusal(reason, detail) }
}

fn refusal(reason: SignReason, detail: impl Into<String>) -> SignRefusal {
    SignRefusal { reason, detail: detail.into() }
}
