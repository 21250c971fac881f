//! Arguments of `portlane run`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::tunnels::Tunnels;
use crate::{
    input::{Input, Laptop, flaw},
    options,
};

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) laptop: Laptop,
    /// Print the manifests that the forwards on the command line stand for, and exit.
    #[arg(long)]
    pub(crate) print: bool,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    pub(crate) log: Log,
    /// Print only warnings and errors: no table, no other events, and sessions only with --access-log.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Sessions to print, instead of what `accessLog.mode` of each forward says.
    #[arg(long, value_enum)]
    access_log: Option<AccessLog>,
    /// Address for /livez, /readyz and /metrics. Absent: not served.
    #[arg(long, value_name = "IP:PORT", value_parser = options::socket)]
    pub(crate) health_address: Option<SocketAddr>,
    /// Loopback address for a page that follows the forwards (/), and for /config, /listeners, /lag, /conns and /drain.
    /// Absent: not served.
    #[arg(long, value_name = "IP:PORT", value_parser = options::socket)]
    pub(crate) admin_address: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) tunnels: Tunnels,
    /// Maximum time to wait for live sessions before exit.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) drain_seconds: u32,
    /// Number of worker threads. Absent: the number of processors, at most 2.
    #[arg(long, value_name = "1..=256", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Maximum number of bytes buffered in memory for peers that do not read. With a memory limit (cgroup), no more
    /// than a quarter of it.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) held_bytes: usize,
    /// Maximum number of TCP sessions; a UDP flow counts as half a session. 0: as many as fit into the memory limit
    /// (cgroup), if any.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_sessions: usize,
    /// Maximum number of UDP flows per socket. A Loopback listener has two sockets, for IPv4 and IPv6. 0: as many as
    /// the process holds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_flows: usize,
}

impl Run {
    /// Describes a conflict between arguments that are valid one by one, in a sentence for the user.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        flaw(&self.input, &self.laptop.map, self.print).or_else(|| self.tunnels.flaw())
    }

    /// Whether manifests are printed, and nothing runs.
    #[must_use]
    pub fn only_prints(&self) -> bool {
        self.print
    }

    /// The access log mode of all forwards; absent if each forward has its own.
    pub(crate) fn access_log(&self) -> Option<crds::AccessLogMode> {
        let mode = self.access_log.or(self.quiet.then_some(AccessLog::Off))?;
        Some(match mode {
            AccessLog::Off => crds::AccessLogMode::Disabled,
            AccessLog::Close => crds::AccessLogMode::Close,
            AccessLog::All => crds::AccessLogMode::OpenAndClose,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// A table at the start, then one line per event.
    Text,
    /// One JSON object per event.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessLog {
    /// None.
    Off,
    /// One record when a session closes.
    Close,
    /// One record when a session opens, too.
    All,
}
