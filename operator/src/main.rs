//! `portlane-operator`: parses settings, sets up the log, and runs the operator until it is asked to end.

use std::{error::Error, io, process::ExitCode};

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
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<(), Box<dyn Error>> {
    // The client logs every failed request. The caller of the request reports the failure too, and only once.
    let filter = EnvFilter::try_new(&settings.log)?.add_directive("kube_client::client::builder=off".parse()?);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stdout);
    // If stdout is gone, records are dropped silently: a complaint on stderr for each of them helps nobody.
    let log = log.log_internal_errors(false);
    match settings.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(settings))?;
    Ok(())
}
