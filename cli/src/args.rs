//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Port forwarding from manifests, on a laptop as in a cluster.
#[derive(Debug, Parser)]
#[command(name = "portlane", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the `PortForward`s of manifests on this machine, and follow the files as they change.
    #[command(after_help = "Examples:
  portlane run -f forwards/                                  a folder of manifests
  portlane run -f db.yaml --resolve pg.shop=10.0.0.7:5432    say where a Service is
  portlane run -f . --port-offset 10000                      this machine has taken the ports
  portlane run -f . --map shop-db/pg=15432 --only shop-db    one forward, on another port
  helm template shop | portlane run -f -                     from standard input")]
    Run(Run),
    /// Check manifests as an API server would, and against each other. Exits with 1 if anything is refused.
    #[command(after_help = "Example:\n  portlane validate -f forwards/")]
    Validate(Input),
    /// Print the configuration document that a proxy would run.
    #[command(after_help = "Example:
  portlane translate -f forwards/ > config.yaml && portlane-proxy --config config.yaml")]
    Translate(Translate),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  source <(portlane completions bash)")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Which manifests.
#[derive(Args, Debug)]
pub(crate) struct Input {
    /// A file, a folder (its .yaml, .yml and .json files), or - for standard input; may be given several times.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Only this forward (NAME or NAMESPACE/NAME); may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
}

/// How a laptop differs from a cluster.
#[derive(Args, Debug)]
pub(crate) struct Laptop {
    /// Where a Service is: SERVICE.NAMESPACE=HOST or SERVICE.NAMESPACE=HOST:PORT; may be given several times.
    #[arg(long, value_name = "SVC.NS=HOST[:PORT]", value_parser = crate::options::resolve)]
    pub(crate) resolve: Vec<crate::options::Resolve>,
    /// Added to every port that is listened on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Listen on another port: FORWARD/LISTENER=PORT; may be given several times.
    #[arg(long, value_name = "FORWARD/LISTENER=PORT", value_parser = crate::options::map)]
    pub(crate) map: Vec<crate::options::Map>,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) laptop: Laptop,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    pub(crate) log: Log,
    /// Serve /livez, /readyz and /metrics here. Absent: nowhere.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) health_address: Option<SocketAddr>,
    /// Serve /config, /listeners, /conns and /drain here, on loopback only. Absent: nowhere.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin_address: Option<SocketAddr>,
    /// Longest time that the end waits for live sessions.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) drain_seconds: u32,
    /// Threads that move bytes. Absent: the processors of this machine, at most 2.
    #[arg(long, value_name = "1..=256", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Most bytes held in memory for peers that do not read.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) held_bytes: usize,
    /// Most UDP flows of one socket; a Loopback listener has two, for IPv4 and IPv6.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
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
    /// A table at the start, then a line per event.
    Text,
    /// A JSON object per event.
    Json,
}
