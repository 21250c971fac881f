//! Arguments of the verbs that connect clients to pods through the API server.

use clap::Args;
use kubectl_core::forward::{mapping::Mapping, target::Target};

use super::Format;

#[derive(Args, Debug)]
pub(crate) struct Forward {
    /// What to forward: svc/NAME, pod/NAME, deploy/NAME, or pf/NAME, the listeners of a `PortForward`.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) target: Target,
    /// Port of the target by number or name, and the port of this machine; an empty LOCAL is any free port. Absent: the
    /// only port of the target, or all TCP listeners of a `PortForward`.
    #[arg(value_name = "[LOCAL:]PORT")]
    pub(crate) ports: Vec<Mapping>,
    /// Maximum number of sessions at the same time, each of which is a connection to the API server.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_sessions: u16,
    /// Maximum time to connect a client to a ready pod, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) wait: u64,
    /// Format of the output: the local ports, once all are open.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// Arguments of `kubectl portlane run`.
#[derive(Args, Debug)]
pub(crate) struct ClusterRun {
    #[command(flatten)]
    pub(crate) run: portlane::Run,
    /// Maximum number of sessions with pods at the same time, each of which is a connection to the API server.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_attached: u16,
    /// Maximum time to connect a client to a ready pod, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) wait: u64,
}
