//! The limits of the operator's permissions. The chart sets them together with its RBAC rules: an operator that watches
//! a kind without permission would never become ready.

use std::{collections::BTreeSet, convert::Infallible, str::FromStr};

use crate::{names::API_SERVER, world::watched::Kind};

/// The limits of the operator's permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Namespaces to watch; empty: all.
    pub watched: Vec<String>,
    /// Namespaces whose gateways get a fleet.
    pub fleets: FleetNamespaces,
    /// Whether fleets may have claims: the operator may write `StatefulSet`s and Jobs, and delete claims.
    pub claims: bool,
    /// Whether the operator may read and write HPAs.
    pub autoscaling: bool,
}

impl Rights {
    /// Returns the namespaces in which a kind is watched; an entry `None` is the whole cluster. With an empty list, the
    /// kind is not watched.
    #[must_use]
    pub fn scopes(&self, kind: Kind) -> Vec<Option<String>> {
        match kind {
            // A Role cannot grant access to Namespace objects, so their labels stay unknown.
            Kind::Namespaces if !self.watched.is_empty() => Vec::new(),
            // The addresses of the API server must always be known, because no forward may use them.
            Kind::ApiServer | Kind::ApiServerSlices => {
                let (namespace, _) = API_SERVER;
                if self.watches(namespace) { Vec::new() } else { vec![Some(namespace.to_owned())] }
            }
            Kind::Scalers if !self.autoscaling => Vec::new(),
            Kind::StatefulSets | Kind::Claims | Kind::Drainers if !self.claims => Vec::new(),
            // These kinds are children of gateways.
            Kind::Deployments
            | Kind::StatefulSets
            | Kind::Claims
            | Kind::Drainers
            | Kind::ServiceAccounts
            | Kind::Budgets
            | Kind::Policies => match &self.fleets {
                FleetNamespaces::All => self.watched_scopes(),
                FleetNamespaces::Only(some) => some.iter().filter(|it| self.watches(it)).cloned().map(Some).collect(),
                FleetNamespaces::None => Vec::new(),
            },
            Kind::Forwards
            | Kind::Gateways
            | Kind::Agents
            | Kind::Services
            | Kind::Slices
            | Kind::ProxyPods
            | Kind::Pods
            | Kind::Namespaces
            | Kind::Grants
            | Kind::Scalers => self.watched_scopes(),
        }
    }

    /// Whether permissions are granted namespace by namespace, so that one namespace may refuse.
    #[must_use]
    pub fn is_scoped(&self) -> bool {
        !self.watched.is_empty() || matches!(self.fleets, FleetNamespaces::Only(_))
    }

    fn watches(&self, namespace: &str) -> bool {
        self.watched.is_empty() || self.watched.iter().any(|watched| watched == namespace)
    }

    fn watched_scopes(&self) -> Vec<Option<String>> {
        match self.watched.as_slice() {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        }
    }
}

/// Namespaces whose gateways get a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FleetNamespaces {
    /// Every watched namespace.
    #[default]
    All,
    /// These namespaces.
    Only(BTreeSet<String>),
    /// No namespace: the operator runs no fleets.
    None,
}

impl FromStr for FleetNamespaces {
    type Err = Infallible;

    /// Reads `*`, or names separated by commas. An empty text means none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names: BTreeSet<String> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(if names.contains("*") {
            Self::All
        } else if names.is_empty() {
            Self::None
        } else {
            Self::Only(names)
        })
    }
}

impl FleetNamespaces {
    /// Why gateways of this namespace get no fleet, with the remedy; `None` if they get one.
    #[must_use]
    pub fn refusal(&self, namespace: &str) -> Option<String> {
        match self {
            Self::All => None,
            Self::Only(names) if names.contains(namespace) => None,
            Self::Only(_) => Some(format!(
                "this operator may not run fleets in namespace {namespace}: add the namespace to the chart value \
                 gateways.namespaces, or use a gateway of a namespace in that list"
            )),
            Self::None => Some(
                "this operator may not run fleets: set the chart value gateways.enabled, or use placement.sidecar"
                    .to_owned(),
            ),
        }
    }
}
