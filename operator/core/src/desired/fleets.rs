//! Settings that all fleets of an installation share.

use std::net::{IpAddr, Ipv6Addr};

use crds::{ForwardGateway, PodTemplate};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{desired::pods::Pods, world::rights::FleetNamespaces};

/// How fleets adopt changes of the installation: another image of the proxy, or anything else that an upgrade changes
/// in their pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollout {
    /// All fleets at once.
    AllAtOnce,
    /// One fleet after the other, ordered by name. A fleet waits until the previous one is rolled out and ready.
    #[default]
    OneByOne,
    /// A fleet keeps its pods until its gateway changes them.
    Pinned,
}

/// Peers, in the form of `from` of a `NetworkPolicy`. The API server checks their content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Peers(pub Vec<Map<String, Value>>);

/// Settings that all gateways of an installation share.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleets {
    /// Image of the proxy.
    pub image: String,
    /// Pull policy of the image.
    pub pull_policy: String,
    /// Address of the operator, `HOST:PORT`.
    pub operator: String,
    /// Address that proxies bind for health and metrics. `::` accepts both IP families.
    pub bind: IpAddr,
    /// Namespaces whose gateways get a fleet.
    pub namespaces: FleetNamespaces,
    /// Whether gateways with claims get a fleet.
    pub claims: bool,
    /// Whether each fleet gets a `NetworkPolicy`.
    pub network_policies: bool,
    /// The sources that may connect to fleets with a `NetworkPolicy`; empty: every source.
    pub peers: Peers,
    /// How fleets adopt changes of the installation.
    pub rollout: Rollout,
    /// Settings that fleets share with sidecars.
    pub pods: Pods,
    /// Defaults for the pods of a fleet, which its gateway may override.
    pub template: PodTemplate,
}

impl Default for Fleets {
    fn default() -> Self {
        Self {
            image: String::new(),
            pull_policy: String::new(),
            operator: String::new(),
            bind: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            namespaces: FleetNamespaces::All,
            claims: true,
            network_policies: false,
            peers: Peers::default(),
            rollout: Rollout::default(),
            pods: Pods::default(),
            template: PodTemplate::default(),
        }
    }
}

impl Fleets {
    /// Why this gateway in the namespace gets no fleet, with the remedy; `None` if it gets one.
    #[must_use]
    pub fn refusal(&self, namespace: &str, gateway: &ForwardGateway) -> Option<String> {
        let lacks_claims = gateway.spec.durability.is_some() && !self.claims;
        self.namespaces.refusal(namespace).or_else(|| {
            lacks_claims.then(|| {
                "this operator may not run fleets with claims: set the chart value claims.enabled, or use a gateway \
                 without spec.durability"
                    .to_owned()
            })
        })
    }
}
