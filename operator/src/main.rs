//! `portlane-operator`: parses settings, sets up the log, and runs the operator until a signal ends it. Kubelet probes it
//! with the same program.

use std::{
    error::Error,
    io::{self, Write},
    panic::{PanicHookInfo, set_hook},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use operator::{
    run::run,
    settings::{LogFormat, Settings},
};
use tracing_subscriber::EnvFilter;

// `--help` begins with the description of the settings.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Probes an operator on this host through its unix socket; the exit code is the result. Kubelet runs this in pods.
    Probe {
        /// Kind of probe.
        #[arg(value_enum)]
        what: Probe,
        /// Unix socket of the operator.
        #[arg(long, value_name = "FILE", env = "PORTLANE_SOCKET")]
        socket: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// Whether every cache has synced, and API servers trust the webhook.
    Ready,
    /// Whether the operator responds, and none of its loops hangs.
    Live,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz",
            Self::Live => "/livez",
        }
    }
}

fn main() -> ExitCode {
    let Args { command, settings } = Args::parse();
    let done: Result<(), Box<dyn Error>> = match command {
        Some(Command::Probe { what, socket }) => proxy_grpc::probe(&socket, what.path()).map_err(Into::into),
        None => start(settings),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = writeln!(io::stderr(), "  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<(), Box<dyn Error>> {
    // The client logs every failed request, and the watcher every refused one. The caller of the request reports the
    // failure, too, and only once.
    let filter = EnvFilter::try_new(&settings.log)?
        .add_directive("kube_client::client::builder=off".parse()?)
        .add_directive("kube_runtime::watcher=error".parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stdout);
    // If stdout is closed, records are dropped silently: an error on stderr for each of them would not help.
    let log = log.log_internal_errors(false);
    match settings.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    // A panic is logged like any other record: the supervisor of the task knows only its name.
    set_hook(Box::new(log_panic));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(settings));
    // A task that hangs must not keep the process from ending.
    runtime.shutdown_background();
    result?;
    Ok(())
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    tracing::error!(panic = text, location, "a part of the operator panicked");
}
