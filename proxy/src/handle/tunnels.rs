//! Starts the tunnels of a proxy, if it has any.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    thread,
};

use tokio::{sync::watch, task::JoinHandle};

use super::StartError;
use crate::{
    agents::{AgentNews, Agents, ForTunnels},
    lives::Lives,
    process::Process,
    settings::Settings,
    signing::Desk,
};

/// The thread of the tunnels, if it has started.
pub(super) type Started = Arc<Mutex<Option<thread::JoinHandle<()>>>>;

/// Starts the thread of the tunnels when it is needed.
type Starts = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tunnels as seen by other threads.
pub(super) struct Tunnels {
    /// The channel to agents.
    pub(super) agents: Agents,
    /// The address that agents dial, with the actual port.
    pub(super) address: Option<SocketAddr>,
    /// The thread, which ends when `configured` is dropped.
    pub(super) thread: Started,
    /// Starts the thread when it is needed, as in a sidecar.
    pub(super) starts: Option<Starts>,
    /// Takes the agents and peers of a configuration.
    pub(super) configured: watch::Sender<Arc<ForTunnels>>,
    /// The instances that connect and disconnect.
    pub(super) news: Arc<AgentNews>,
    /// The end of the channel to an operator that signs certificates.
    pub(super) desk: Option<Desk>,
}

impl Tunnels {
    /// Starts the thread of the tunnels, if agents may connect.
    #[cfg(feature = "tunnels")]
    pub(super) fn start(settings: &Settings, process: &Process) -> Result<Self, StartError> {
        let Some(settings) = &settings.tunnels else {
            return Ok(settings.sidecar.as_ref().map_or_else(Self::none, |sidecar| Self::of_sidecar(sidecar, process)));
        };
        let failed = |source| super::address_error("tunnel", settings.address, source, None);
        let listener = crate::tunnels::bind(settings.address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (configured, configurations) = watch::channel(Arc::default());
        let news = Arc::new(AgentNews::default());
        let (to_operator, desk) = crate::signing::desk();
        let started = crate::tunnels::start(settings, listener, process, configurations, news.clone(), to_operator);
        let (agents, thread) = started.map_err(StartError::Tunnels)?;
        let desk = settings.endpoint.is_some().then_some(desk);
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(Self { agents, address: Some(address), thread, starts: None, configured, news, desk })
    }

    /// Creates the tunnels of a sidecar, whose thread starts once there are agents.
    #[cfg(feature = "tunnels")]
    fn of_sidecar(settings: &crate::tunnels::sidecar::Settings, process: &Process) -> Self {
        let (configured, configurations) = watch::channel(Arc::default());
        let (news, thread) = (Arc::new(AgentNews::default()), Started::default());
        let (to_operator, desk) = crate::signing::desk();
        let (agents, starts) =
            crate::tunnels::sidecar::wait(settings, process, configurations, news.clone(), to_operator, thread.clone());
        let (starts, desk) = (Some(starts), Some(desk.of_sidecar()));
        Self { agents, address: None, thread, starts, configured, news, desk }
    }

    /// Starts nothing, as this proxy is built without tunnels.
    #[cfg(not(feature = "tunnels"))]
    #[allow(clippy::unnecessary_wraps, reason = "the same signature as with tunnels")]
    pub(super) fn start(_: &Settings, _: &Process) -> Result<Self, StartError> {
        Ok(Self::none())
    }

    /// The tunnels of a proxy to which no agent can connect.
    fn none() -> Self {
        let configured = watch::Sender::new(Arc::default());
        Self {
            agents: Agents::none(),
            address: None,
            thread: Started::default(),
            starts: None,
            configured,
            news: Arc::default(),
            desk: None,
        }
    }
}

/// Runs the future that starts the thread. A panic is reported: without the thread, no agent could connect.
pub(super) fn spawn_guarded(starts: Starts, lives: Arc<Lives>) -> JoinHandle<()> {
    tokio::spawn(lives.shield("the start of the tunnels", starts))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, future::poll_fn};

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_panic_before_the_thread_of_the_tunnels_starts_is_told_and_an_end_is_none() {
        let lives = Lives::new(Clock::start());
        spawn_guarded(Box::pin(async {}), lives.clone()).await.expect("it ends");
        assert!(lives.died().is_empty());
        let panics = poll_fn(|_| -> std::task::Poll<()> { panic!("as the test wants") });
        spawn_guarded(Box::pin(panics), lives.clone()).await.expect_err("a panic");
        assert_eq!(lives.died(), BTreeSet::from(["the start of the tunnels".to_owned()]));
    }
}
