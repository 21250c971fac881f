//! Listeners that keep running in their last good version.
//!
//! A mistake in a new version stops no listener. Today's permissions apply to the last good version, as they do to the
//! newest version of any other listener: a withdrawn permission is not a mistake.

use proxy_api::{Backend, Listener, Offer};

use crate::translate::{
    admission,
    asked::Asked,
    backends::Scope,
    claims::Port,
    groups::Group,
    judge::{Compiled, Judge, Judgement},
    streams, tenants,
    verdict::{Outcome, Reason, Verdict},
};

impl Judge<'_> {
    /// Keeps listeners of the previous judgement if their new version is refused as a mistake and no other forward has
    /// taken the port. A suspended forward keeps nothing running.
    pub(crate) fn keep_last_good(&self, previous: &[Compiled], judgement: &mut Judgement) {
        if self.forward.suspended {
            return;
        }
        for before in previous {
            let is_new = judgement.compiled.iter().any(|now| now.id == before.id);
            if is_new || !is_mistaken(&judgement.verdict, &before.id.listener) {
                continue;
            }
            judgement.compiled.extend(self.kept(before));
        }
    }

    /// A listener in its last good version, in the groups where its ports are free.
    fn kept(&self, before: &Compiled) -> Option<Compiled> {
        let Offer::Supported(listener) = &before.offer else { return None };
        let today = self.permitted_today(before, listener)?;
        let offer = if today.revision == listener.revision { before.offer.clone() } else { today.into() };
        let key = &self.forward.origin;
        let free = self.own.iter().filter(|(_, (ledger, _))| !ledger.conflicts_with(key, listener));
        let groups: Vec<Group> = free.map(|(group, _)| (*group).clone()).collect();
        let is_anywhere = !groups.is_empty();
        is_anywhere.then(|| Compiled {
            id: before.id.clone(),
            offer,
            groups,
            kept: true,
            is_allocated: before.is_allocated,
        })
    }

    /// A running listener as far as its gateway and the owners of its backends permit today; `None` if it may not run.
    fn permitted_today(&self, before: &Compiled, listener: &Listener) -> Option<Listener> {
        let forward = self.forward;
        let asked = Asked::by_running(&before.id.listener, listener, before.is_allocated);
        if admission::refused(self.world, &forward.placement, &forward.origin.namespace, &[asked]).is_some() {
            return None;
        }
        let listens = |_: Port| false;
        let scope = Scope::new(self.admissions, forward, &listens);
        let backends: Vec<Backend> =
            listener.backends.iter().filter_map(|backend| scope.still_permitted(backend, listener)).collect();
        let tenant_limits = tenants::limits(self.world, forward, listener.durable.is_some()).map(Box::new);
        let durable = match listener.durable.as_deref() {
            None => None,
            Some(durable) => Some(Box::new(streams::served(self.world, &forward.placement, durable)?)),
        };
        let today = Listener { destinations: scope.destinations, tenant_limits, backends, durable, ..listener.clone() };
        (!today.backends.is_empty()).then(|| today.sealed())
    }
}

/// Whether the new version of a listener is refused as a mistake.
fn is_mistaken(verdict: &Verdict, name: &str) -> bool {
    let listener = verdict.listeners.iter().find(|listener| listener.name == name);
    let Some(Outcome::Refused { reason, .. }) = listener.map(|listener| &listener.outcome) else { return false };
    matches!(
        reason,
        Reason::Invalid
            | Reason::PortConflict
            | Reason::HostnameConflict
            | Reason::BackendLoop
            | Reason::BackendNotFound
    )
}
