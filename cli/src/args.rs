//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Run, validate and translate `PortForward` manifests without a cluster.
#[derive(Debug, Parser)]
#[command(name = "portlane", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run `PortForward`s from manifests on this machine, and apply changes to the files.
    #[command(after_help = "Examples:
  portlane run -f forwards/                                  every manifest in a folder
  portlane run -f db.yaml --resolve pg.shop=10.0.0.7:5432    give the address of a Service
  portlane run -f . --port-offset 10000                      avoid ports in use on this machine
  portlane run -f . --map shop-db/pg=15432 --only shop-db    one forward, with another port
  helm template shop | portlane run -f -                     read standard input")]
    Run(Run),
    /// Validate manifests as an API server would, and check them for conflicts. Exits with 1 if a manifest is refused.
    #[command(after_help = "Example:\n  portlane validate -f forwards/")]
    Validate(Input),
    /// Print the configuration document for a proxy. Exits with 1, without a document, if a manifest is refused.
    #[command(after_help = "Example:
  portlane translate -f forwards/ > config.yaml && portlane-proxy --config config.yaml")]
    Translate(Translate),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  source <(portlane completions bash)")]
    Completions {
        /// Shell to generate the script for.
        shell: Shell,
    },
}

/// Which manifests to read.
#[derive(Args, Debug)]
pub(crate) struct Input {
    /// File, folder (its .yaml, .yml and .json files), or - for standard input; the same as -f.
    #[arg(value_name = "FILE|DIR|-")]
    operands: Vec<PathBuf>,
    /// File, folder (its .yaml, .yml and .json files), or - for standard input. Can be given several times.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required_unless_present = "operands")]
    files: Vec<PathBuf>,
    /// Read the subfolders of folders too.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Namespace of objects without metadata.namespace.
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Use only this forward. Can be given several times.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(crate) only: Vec<String>,
}

impl Input {
    /// The paths to read, however they are given.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().chain(&self.operands).cloned().collect()
    }
}

/// How a laptop differs from a cluster.
#[derive(Args, Debug)]
pub(crate) struct Laptop {
    /// Address of a Service, which a laptop cannot look up. Can be given several times.
    #[arg(long, value_name = "SVC.NS=HOST[:PORT]", value_parser = crate::options::resolve)]
    pub(crate) resolve: Vec<crate::options::Resolve>,
    /// Number to add to every port to listen on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Port to listen on for one listener, instead of the port in the manifest. Can be given several times.
    #[arg(long, value_name = "FORWARD/LISTENER=PORT", value_parser = crate::options::map)]
    pub(crate) map: Vec<crate::options::Map>,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) laptop: Laptop,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    pub(crate) log: Log,
    /// Address for /livez, /readyz and /metrics. Absent: not served.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) health_address: Option<SocketAddr>,
    /// Loopback address for /config, /listeners, /conns and /drain. Absent: not served.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<SocketAddr>,
    /// Longest time to wait for live sessions before exit.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) drain_seconds: u32,
    /// Number of threads that move bytes. Absent: the number of processors, at most 2.
    #[arg(long, value_name = "1..=256", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Most bytes to buffer in memory for peers that do not read. With a memory limit (cgroup), no more than a quarter of it.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) held_bytes: usize,
    /// Most TCP sessions; a UDP flow counts as half a session. 0: as many as fit into the memory limit (cgroup), if any.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_sessions: usize,
    /// Most UDP flows per socket. A Loopback listener has two sockets, for IPv4 and IPv6. 0: as many as the process holds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_flows: usize,
}

#[derive(Args, Debug)]
pub(crate) struct Translate {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) laptop: Laptop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// A table at the start, then one line per event.
    Text,
    /// One JSON object per event.
    Json,
}
