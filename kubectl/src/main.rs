//! `kubectl-portlane`, which kubectl runs as `kubectl portlane`: fetches objects and prints the reports that
//! `kubectl_core` makes of them.

mod args;
mod cluster;
mod config;
mod conns;
mod describe;
#[cfg(test)]
mod documented;
mod drain;
mod error;
mod forward;
mod lag;
mod live;
mod logs;
mod missing;
mod run;
mod status;
mod top;
mod trace;
mod ui;

use std::process::ExitCode;

use kubectl_core::status::Verdict;
use portlane::output;

use self::{
    args::{Cli, Command},
    cluster::Cluster,
    error::Error,
};

/// Exit code: a check or a step has failed, a gateway or a forward is not ready, or a manifest is refused.
const FAILED: u8 = 1;
/// Exit code: something could not be read.
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    match start(&Cli::read()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::note(&format!("error: {}", error.with_causes()));
            ExitCode::from(error.code())
        }
    }
}

fn start(cli: &Cli) -> Result<u8, Error> {
    if let Command::Completion { shell } = &cli.command {
        output::write(&Cli::completion(*shell))?;
        return Ok(0);
    }
    if let Command::Validate(args) = &cli.command {
        return Ok(if portlane::validate(args) { 0 } else { FAILED });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Command::Run(args) = &cli.command {
        run::run(&runtime, &cli.connection, args)?;
        return Ok(0);
    }
    runtime.block_on(Box::pin(report(cli)))
}

async fn report(cli: &Cli) -> Result<u8, Error> {
    let cluster = Cluster::connect(&cli.connection).await?;
    // An unusable API server should be reported before the failure of a request to it.
    let now = cluster.now().await?;
    let is_complete = match &cli.command {
        Command::Status(args) => return Ok(code(Box::pin(status::run(&cluster, now, args)).await?)),
        Command::Trace(args) => return Ok(code(Box::pin(trace::run(&cluster, args)).await?)),
        Command::Describe(args) => Box::pin(describe::run(&cluster, now, args)).await?,
        Command::Logs(args) => Box::pin(logs::run(&cluster, args)).await?,
        Command::Forward(args) => {
            Box::pin(forward::run(&cluster, args)).await?;
            true
        }
        Command::Conns(args) => Box::pin(conns::run(&cluster, args)).await?,
        Command::Lag(args) => Box::pin(lag::run(&cluster, args)).await?,
        Command::Config(args) => {
            Box::pin(config::run(&cluster, args)).await?;
            true
        }
        Command::Top(args) => Box::pin(top::run(&cluster, args)).await?,
        Command::Ui(args) => {
            Box::pin(ui::run(&cluster, args)).await?;
            true
        }
        Command::Drain(args) => {
            Box::pin(drain::run(&cluster, args)).await?;
            true
        }
        // `start` has handled these commands.
        Command::Run(_) | Command::Validate(_) | Command::Completion { .. } => true,
    };
    Ok(if is_complete { 0 } else { INCOMPLETE })
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Failed => FAILED,
        Verdict::Incomplete => INCOMPLETE,
    }
}
