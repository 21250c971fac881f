//! Selects the forwards to judge again, and judges them.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_api::{Origin, forms};

use super::{
    forwards::Forwards,
    known::{Known, placeholder},
    ledgers::{Ledgers, Settled},
    members::{Members, Regrouped},
};
use crate::{
    translate::{
        agents::{self, Admissions},
        judge::{Judge, Judgement},
        program::Sets,
        verdict::{Condition, Reason},
    },
    world::{ObjectKey, World, changes::Changes},
};

/// New judgements.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// The judgements; `None` for a forward that is gone.
    pub(super) judgements: Vec<(Origin, Option<Judgement>)>,
    /// Endpoint sets that backends resolved to, by name.
    pub(super) endpoints: Sets,
}

/// The forwards that may be judged differently: their own spec, groups, pods, claims, Services, agents or fleet
/// changed, or an address among `moved` is one that they name or that of an endpoint without a pod.
pub(super) fn due(
    world: &World,
    changes: &Changes,
    regrouped: &Regrouped,
    settled: Settled,
    moved: &BTreeSet<IpAddr>,
    forwards: &Forwards,
) -> BTreeSet<Origin> {
    let mut due = settled.forwards;
    due.extend(regrouped.forwards.iter().cloned());
    due.extend(settled.groups.iter().flat_map(|group| forwards.depending_on_claims(group)));
    // A verdict names an endpoint only if no pod backs it.
    let has_podless = |service: &&ObjectKey| world.podless.contains_key(*service);
    let services = changes.services.union(&changes.podless).chain(changes.endpoints.iter().filter(has_podless));
    due.extend(services.flat_map(|service| forwards.of_service(service)).cloned());
    due.extend(changes.fronts.iter().flat_map(|gateway| forwards.of_gateway(gateway)).cloned());
    due.extend(agents::changed(world, changes).iter().flat_map(|agent| forwards.of_agent(agent)).cloned());
    due.extend(moved.iter().flat_map(|address| forwards.of_address(address)).cloned());
    due.extend(podless_at(world, moved).flat_map(|service| forwards.of_service(service)).cloned());
    if changes.grants {
        due.extend(forwards.on_grants().cloned());
    }
    due
}

/// The Services with an endpoint without a pod at one of these addresses. No index holds these endpoints by address: it
/// could have thousands of entries for each Service, and nodes and API servers seldom move.
fn podless_at<'a>(world: &'a World, moved: &'a BTreeSet<IpAddr>) -> impl Iterator<Item = &'a ObjectKey> {
    let has_moved = move |ip: &IpAddr| forms(*ip).any(|form| moved.contains(&form));
    let services = world.podless.iter().filter(move |_| !moved.is_empty());
    services.filter(move |(_, podless)| podless.iter().any(has_moved)).map(|(service, _)| service)
}

/// Judges these forwards.
pub(super) fn judge(
    world: &World,
    due: BTreeSet<Origin>,
    forwards: &Forwards,
    members: &Members,
    ledgers: &Ledgers,
) -> Judged {
    let mut judged = Judged::default();
    let admissions = Admissions::new(world);
    for key in due {
        let judgement = world.has(&key).then(|| {
            let mut judgement = judge_one(&admissions, &key, forwards, members, ledgers);
            judged.endpoints.extend(std::mem::take(&mut judgement.endpoints));
            judgement.shrink();
            judgement
        });
        judged.judgements.push((key, judgement));
    }
    judged
}

fn judge_one(
    admissions: &Admissions<'_>,
    key: &Origin,
    forwards: &Forwards,
    members: &Members,
    ledgers: &Ledgers,
) -> Judgement {
    let world = admissions.world;
    let known = forwards.get(key);
    let groups = members.groups_of(world, key, known.and_then(Known::place));
    let judged = known.and_then(Known::in_force).map(|forward| {
        let own = groups.iter().filter_map(|group| Some((group, (ledgers.get(group)?, members.counts(group)))));
        let judge = Judge { world, admissions, forward, own: own.collect() };
        let mut judgement = judge.judge();
        judge.keep_last_good(known.map_or(&[][..], Known::last_good), &mut judgement);
        judgement
    });
    let mut judgement = match (judged, known.map(Known::spec)) {
        (Some(judged), Some(Err(why))) => judged.behind(why.clone()),
        (Some(judged), _) => judged,
        (None, Some(Err(why))) => Judgement::refused(why.clone()),
        (None, _) => Judgement::refused(placeholder()),
    };
    if let Some(why) = world.unreadable(key) {
        judgement.verdict.accepted = unreadable(why);
    }
    judgement
}

fn unreadable(why: &str) -> Condition {
    let message = format!(
        "this operator cannot read the object ({why}); its listeners keep running unchanged: install CRDs and operator \
         of the same release"
    );
    Condition::unmet(Reason::Unsupported, message)
}
