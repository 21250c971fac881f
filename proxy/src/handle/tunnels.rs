//! Where the tunnels of a proxy start, if it has any.

use std::{net::SocketAddr, sync::Arc, thread};

use tokio::sync::watch;

use super::StartError;
use crate::{
    agents::{AgentNews, Agents, ForTunnels},
    process::Process,
    settings::Settings,
    signing::Desk,
};

/// The tunnels, as the other threads see them.
pub(super) struct Tunnels {
    /// The way to agents.
    pub(super) agents: Agents,
    /// The address that agents dial, with the actual port.
    pub(super) address: Option<SocketAddr>,
    /// The thread, which ends when `configured` is dropped.
    pub(super) thread: Option<thread::JoinHandle<()>>,
    /// Takes the agents and peers of a configuration.
    pub(super) configured: watch::Sender<Arc<ForTunnels>>,
    /// The instances that come and go.
    pub(super) news: Arc<AgentNews>,
    /// What the thread has for an operator that signs.
    pub(super) desk: Option<Desk>,
}

impl Tunnels {
    /// Starts the thread of the tunnels, if agents may connect.
    #[cfg(feature = "tunnels")]
    pub(super) fn start(settings: &Settings, process: &Process) -> Result<Self, StartError> {
        let Some(settings) = &settings.tunnels else { return Ok(Self::none()) };
        let failed = |source| super::address_error("tunnel", settings.address, source, None);
        let listener = crate::tunnels::bind(settings.address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (configured, configurations) = watch::channel(Arc::default());
        let news = Arc::new(AgentNews::default());
        let (to_operator, desk) = crate::signing::desk();
        let started = crate::tunnels::start(settings, listener, process, configurations, news.clone(), to_operator);
        let (agents, thread) = started.map_err(StartError::Tunnels)?;
        let desk = settings.endpoint.is_some().then_some(desk);
        Ok(Self { agents, address: Some(address), thread: Some(thread), configured, news, desk })
    }

    /// A proxy that is built without tunnels has none.
    #[cfg(not(feature = "tunnels"))]
    #[allow(clippy::unnecessary_wraps, reason = "the same signature as with tunnels")]
    pub(super) fn start(_: &Settings, _: &Process) -> Result<Self, StartError> {
        Ok(Self::none())
    }

    /// No agent can connect.
    fn none() -> Self {
        let configured = watch::Sender::new(Arc::default());
        Self { agents: Agents::none(), address: None, thread: None, configured, news: Arc::default(), desk: None }
    }
}
