//! What can be set about a proxy process, each with its bound.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use crate::log::{Level, LogFormat};

/// Settings of a proxy process. [`Settings::default`] suits a sidecar and a laptop.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that move bytes.
    pub workers: NonZeroUsize,
    /// Most bytes held in memory for peers that do not read, over all sessions.
    pub held_bytes: usize,
    /// Most bytes in kernel pipes for splicing; the limit of the system is per user, not per process.
    pub pipe_bytes: usize,
    /// Most UDP flows of one socket; a Loopback listener has two, for IPv4 and IPv6.
    pub max_flows: usize,
    /// Most log records that wait for the writer; further ones are dropped and counted.
    pub log_queue: usize,
    /// Form of log records.
    pub log_format: LogFormat,
    /// The least important notices that are written; the access log is a matter of each forward.
    pub log_level: Level,
    /// Where /livez, /readyz and /metrics are served; `None`: nowhere.
    pub health: Option<SocketAddr>,
    /// Where /config, /conns and /drain are served, on loopback only; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// File of a socket on which all of that is served, and /startupz; `None`: nowhere.
    pub socket: Option<PathBuf>,
    /// Go on without an address of health or admin that is taken, and say so: in a sidecar the app may have it.
    pub may_lack_addresses: bool,
    /// How long /startupz waits for the first configuration; then the app of a sidecar starts without it.
    pub startup: Duration,
    /// Say nothing of listeners that come up with the first configuration, because the caller shows them itself.
    pub quiet_start: bool,
    /// Longest time that the end of the process waits for sessions, in seconds.
    pub drain_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        // More threads than this do not pay beside the application that a sidecar serves.
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(2);
        Self {
            workers: NonZeroUsize::new(cores).unwrap_or(NonZeroUsize::MIN),
            held_bytes: 64 << 20,
            pipe_bytes: 4 << 20,
            max_flows: 10_000,
            log_queue: 4096,
            log_format: LogFormat::Text,
            log_level: Level::Info,
            health: None,
            admin: None,
            socket: None,
            may_lack_addresses: false,
            startup: Duration::from_secs(10),
            quiet_start: false,
            drain_seconds: 300,
        }
    }
}
