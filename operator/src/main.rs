//! `portlane-operator`: parses settings, sets up the log, and runs the operator until a signal ends it.

use std::{
    error::Error,
    io::{self, Write},
    panic::{PanicHookInfo, set_hook},
    process::ExitCode,
};

use clap::Parser;
use operator::{
    run::run,
    settings::{LogFormat, Settings},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let settings = Settings::parse();
    match start(settings) {
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
