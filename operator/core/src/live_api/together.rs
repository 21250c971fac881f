//! All forwards of a namespace, or of all namespaces, in one response: which proxies carry them, and their rates.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxy_api::Origin;

use super::rates::Rates;
use crate::{
    status::proxies::Proxies,
    translate::{groups::Group, verdict::Verdict},
    world::proxy_id::ProxyId,
};

/// Most forwards that a response counts one by one.
pub const MAX_FORWARDS: usize = 1000;

/// The forwards of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwards {
    /// The first [`MAX_FORWARDS`] by name, with their rates; absent if the rates of a proxy are unknown.
    pub rates: BTreeMap<Origin, Option<Rates>>,
    /// Number of further forwards.
    pub omitted: usize,
}

/// The namespaces of the forwards that a proxy carries, by its groups: proxies of one group share them.
pub type Carried = Vec<Arc<BTreeSet<String>>>;

/// The proxies and rates of all forwards of a namespace or of the cluster, before the proxies are queried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// The forwards.
    pub forwards: Forwards,
    /// The proxies that carry any of the forwards, with their rates for all of them; absent if these are unknown.
    pub proxies: BTreeMap<ProxyId, Option<Rates>>,
    /// The namespaces of the forwards that each of these proxies carries.
    pub carried: BTreeMap<ProxyId, Carried>,
}

impl Together {
    /// The forwards of a namespace, or of all namespaces, among these verdicts. `carriers` returns the proxies that run
    /// a group.
    #[must_use]
    pub fn new<'a>(
        verdicts: impl Iterator<Item = (&'a Origin, &'a Verdict)>,
        namespace: Option<&str>,
        carriers: impl Fn(&Group) -> BTreeSet<ProxyId>,
        proxies: &Proxies,
    ) -> Self {
        let is_inside = |origin: &Origin| namespace.is_none_or(|namespace| origin.namespace == namespace);
        let mut forwards: BTreeMap<&Origin, &Verdict> = verdicts.filter(|it| is_inside(it.0)).collect();
        let groups = namespaces_of_groups(&forwards);
        let beyond = forwards.keys().nth(MAX_FORWARDS).copied();
        let omitted = beyond.map_or(0, |first| forwards.split_off(first).len());

        let mut of_proxies: BTreeMap<ProxyId, Option<Rates>> = BTreeMap::new();
        let mut carried: BTreeMap<ProxyId, Carried> = BTreeMap::new();
        let mut sums: BTreeMap<Origin, Rates> = BTreeMap::new();
        let mut unknown: BTreeSet<&Group> = BTreeSet::new();
        for (group, namespaces) in groups {
            let namespaces = Arc::new(namespaces);
            for proxy in carriers(group) {
                carried.entry(proxy.clone()).or_default().push(namespaces.clone());
                let rates = of_proxies.entry(proxy).or_insert_with_key(|proxy| {
                    let mut all = Rates::default();
                    for (name, work) in proxies.loads(proxy)? {
                        let Ok(origin) = Origin::try_from(name.clone()) else { continue };
                        if is_inside(&origin) {
                            all = all.plus(Rates::from(work), u64::MAX);
                            let sum = sums.entry(origin).or_default();
                            *sum = sum.plus(Rates::from(work), u64::MAX);
                        }
                    }
                    Some(all)
                });
                if rates.is_none() {
                    unknown.insert(group);
                }
            }
        }
        let rates = |(origin, verdict): (&Origin, &Verdict)| {
            let is_known = verdict.groups.iter().all(|group| !unknown.contains(group));
            (origin.clone(), is_known.then(|| sums.get(origin).copied().unwrap_or_default()))
        };
        let rates = forwards.into_iter().map(rates).collect();
        Self { forwards: Forwards { rates, omitted }, proxies: of_proxies, carried }
    }
}

/// Returns the groups that carry forwards, each with the namespaces of these forwards.
fn namespaces_of_groups<'a>(forwards: &BTreeMap<&Origin, &'a Verdict>) -> BTreeMap<&'a Group, BTreeSet<String>> {
    let mut groups: BTreeMap<&Group, BTreeSet<String>> = BTreeMap::new();
    for (origin, verdict) in forwards {
        for group in &verdict.groups {
            let namespaces = groups.entry(group).or_default();
            if !namespaces.contains(&origin.namespace) {
                namespaces.insert(origin.namespace.clone());
            }
        }
    }
    groups
}
