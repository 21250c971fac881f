//! Settings of a proxy process, each with its bound.

#[cfg(feature = "tunnels")]
mod tunnels;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

#[cfg(feature = "tunnels")]
pub use self::tunnels::{SidecarSettings, TunnelSettings};
use crate::{
    core::limits::capacity,
    log::{Level, LogFormat},
};

/// Most worker threads beside the application that a sidecar serves, and on laptops: more do not pay off.
pub const FEW_WORKERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// Settings of a proxy process. The [`Settings::default`] suits sidecars and laptops.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Most bytes buffered in memory for peers that do not read, over all sessions. With a memory limit, no more than a
    /// quarter of it.
    pub held_bytes: usize,
    /// Most TCP sessions, including those in a handshake; a UDP flow counts as half a session. 0: as many as fit into
    /// the memory limit of the process, see [`capacity`].
    pub max_sessions: usize,
    /// Most bytes in kernel pipes for splicing. The system's own limit is per user, not per process.
    pub pipe_bytes: usize,
    /// Most UDP flows per socket; a Loopback listener has two sockets, for IPv4 and IPv6, and with many workers each has a
    /// socket of its own. 0: as many as the process holds, see [`capacity::FlowBounds`].
    pub max_flows: usize,
    /// Capacity of the log queue; further records are dropped and counted.
    pub log_queue: usize,
    /// Format of log records.
    pub log_format: LogFormat,
    /// Lowest level of notices to log; the access log is configured per forward.
    pub log_level: Level,
    /// Address of /livez, /readyz and /metrics; `None`: not served.
    pub health: Option<SocketAddr>,
    /// Address of /config, /listeners, /lag, /conns and /drain, on loopback only; `None`: not served.
    pub admin: Option<SocketAddr>,
    /// Unix socket for all of these endpoints and /startupz; `None`: not served.
    pub socket: Option<PathBuf>,
    /// Whether the proxy is a sidecar. It then keeps running, with a warning, if the health or admin address is taken,
    /// because the app may use it.
    pub may_lack_addresses: bool,
    /// How long /startupz waits for the first configuration before the app of a sidecar starts without it.
    pub startup: Duration,
    /// How long the proxy leaves a port alone after another program freed it, so that an app that is restarted gets it
    /// back; zero: a free port is taken at once.
    pub yield_for: Duration,
    /// File that stores such ports; `None`: they are forgotten when the process ends.
    pub foreign_ports_file: Option<PathBuf>,
    /// Whether listeners that start with the first configuration are not logged, because the caller shows them itself.
    pub quiet_start: bool,
    /// Longest drain of sessions when the process ends, in seconds.
    pub drain_seconds: u32,
    /// Folder in which durable listeners keep messages; `None`: they do not run.
    pub data: Option<PathBuf>,
    /// File with the credentials of NATS servers that keep messages of durable listeners; `None`: not given.
    pub jetstream_credentials: Option<PathBuf>,
    /// File with the CA certificates for these servers; `None`: those of the system.
    pub jetstream_ca: Option<PathBuf>,
    /// Most bytes of all logs in this folder together; `None`: the sum of their own bounds.
    pub data_bytes: Option<u64>,
    /// How long sinks still get messages when the process ends, in seconds; 0: unsent messages stay in the folder.
    pub data_drain_seconds: u32,
    /// Whether the proxy only sends the messages in this folder; see [`crate::core::durable::draining`].
    pub drain_only: bool,
    /// The port for agents; `None`: agents cannot connect.
    #[cfg(feature = "tunnels")]
    pub tunnels: Option<TunnelSettings>,
    /// The port for agents of a sidecar, if there are no tunnels; `None`: agents cannot connect.
    #[cfg(feature = "tunnels")]
    pub sidecar: Option<SidecarSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: workers(FEW_WORKERS),
            held_bytes: 64 << 20,
            max_sessions: 0,
            pipe_bytes: 4 << 20,
            max_flows: 0,
            log_queue: 4096,
            log_format: LogFormat::Text,
            log_level: Level::Info,
            health: None,
            admin: None,
            socket: None,
            may_lack_addresses: false,
            startup: Duration::from_secs(10),
            yield_for: Duration::ZERO,
            foreign_ports_file: None,
            quiet_start: false,
            drain_seconds: 300,
            data: None,
            jetstream_credentials: None,
            jetstream_ca: None,
            data_bytes: None,
            data_drain_seconds: 0,
            drain_only: false,
            #[cfg(feature = "tunnels")]
            tunnels: None,
            #[cfg(feature = "tunnels")]
            sidecar: None,
        }
    }
}

/// Worker threads of this process: its CPUs, no more than `most`. The CPUs are those of its CPU limit (`cpu.max` of its
/// control groups, in whole CPUs, at least one) and of its affinity.
#[must_use]
pub fn workers(most: NonZeroUsize) -> NonZeroUsize {
    capacity::workers(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN), most)
}
