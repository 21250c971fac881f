//! One gateway whose agents a sidecar reaches: the serving certificate from it, and the endpoint for its agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use tokio::task::{AbortHandle, spawn_local};
use tunnel::{
    endpoint::{self, Endpoint, Rules},
    local::system_clock,
    remote::{Nobody, Remote},
};
use tunnel_core::{Limits, Pool, door::SIDECAR_CONNECTIONS_PER_SECOND, identity::EndpointId};

use super::{MAX_AGENTS, Names, Woken};
use crate::{
    lives::Lives,
    log::Log,
    signing::Asks,
    tunnels::{RulesByUid, TunnelsError, boot, trust::keep},
};

/// A gateway, until it is dropped.
pub(super) struct Gateway {
    rules: RulesByUid,
    remote: Rc<Remote<Asks, Nobody>>,
    /// `None` before there is a serving certificate, which has the id of the endpoint.
    endpoint: Option<Rc<Endpoint>>,
    tasks: Vec<AbortHandle>,
    lives: Arc<Lives>,
}

impl Gateway {
    /// Creates the gateway of this uid. Its serving certificate has its own folder, and its task asks for certificates.
    pub(super) fn new(
        uid: &str,
        folder: &Path,
        asks: Asks,
        (log, lives): (Log, &Arc<Lives>),
        woken: &Rc<Woken>,
    ) -> Result<Self, TunnelsError> {
        // The uid names a folder, so it must be a valid label.
        let label = EndpointId::new(uid)?;
        let folder = folder.join(label.as_str());
        let remote = Rc::new(Remote::open_sidecar(&folder, uid.to_owned(), system_clock(), asks)?);
        let woken = woken.clone();
        let signed = move || woken.notify.notify_one();
        let subject = "the certificate of this sidecar";
        let keeper = spawn_local(keep(remote.clone(), log, subject, lives.guard(subject), signed));
        let (rules, tasks) = (RulesByUid::default(), vec![keeper.abort_handle()]);
        Ok(Self { rules, remote, endpoint: None, tasks, lives: lives.clone() })
    }

    /// The endpoint, if there is a serving certificate.
    pub(super) fn endpoint(&self) -> Option<&Rc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// Whether the agent of this uid dials the gateway.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.rules.borrow().contains_key(uid)
    }

    /// Replaces the rules of agents, and returns the rules before.
    pub(super) fn set(&self, rules: BTreeMap<String, Rc<Rules>>) -> BTreeMap<String, Rc<Rules>> {
        let before = self.rules.replace(rules);
        if let Some(endpoint) = &self.endpoint {
            endpoint.review();
        }
        before
    }

    /// Opens the endpoint once there is a serving certificate, which has its id.
    pub(super) fn open(&mut self, names: &Names, pool: &Rc<Pool>, woken: &Rc<Woken>) -> Result<(), TunnelsError> {
        let Some(id) = self.remote.id().filter(|_| self.endpoint.is_none()) else { return Ok(()) };
        let settings = endpoint::Settings {
            id,
            boot: boot()?,
            limits: Limits::default().with_sidecar(),
            max_agents: MAX_AGENTS,
            connections_per_second: SIDECAR_CONNECTIONS_PER_SECOND,
        };
        let rules = self.rules.clone();
        let endpoint = Endpoint::within(settings, pool.clone(), move |uid| rules.borrow().get(uid).cloned());
        names.insert(endpoint.clone(), self.remote.tls());
        let watched_endpoint = endpoint.clone();
        let changed = async move || watched_endpoint.changed().await;
        let watching = watched(self.lives.clone(), changed, woken.clone());
        self.tasks.push(spawn_local(watching).abort_handle());
        self.endpoint = Some(endpoint);
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Runs [`watch`], and reports its death: without it, the proxy does not learn of agents that come and go.
async fn watched(lives: Arc<Lives>, changed: impl AsyncFn() -> BTreeSet<String>, woken: Rc<Woken>) {
    lives.watch("the watch of the agents of a gateway", watch(changed, woken)).await;
}

/// Passes on the uids of agents whose instances have changed.
async fn watch(changed: impl AsyncFn() -> BTreeSet<String>, woken: Rc<Woken>) {
    loop {
        let uids = changed().await;
        woken.touched.borrow_mut().extend(uids);
        woken.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    // D12
    #[tokio::test]
    async fn a_watch_of_agents_that_panics_is_named_as_one_that_has_died() {
        let (lives, woken) = (Lives::new(Clock::start()), Rc::new(Woken::default()));
        let changed = async || -> BTreeSet<String> { panic!("as the test wants") };
        let task = watched(lives.clone(), changed, woken);
        let ended = tokio::task::LocalSet::new().run_until(async move { spawn_local(task).await }).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
        assert_eq!(lives.died(), BTreeSet::from(["the watch of the agents of a gateway".to_owned()]));
    }
}
