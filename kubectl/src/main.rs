//! `kubectl-portlane`, which kubectl runs as `kubectl portlane`: fetches objects and prints what `kubectl_core` makes of
//! them.

mod args;
mod cluster;
mod describe;
mod error;
mod logs;
mod output;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use kubectl_core::status::Verdict;

use self::{
    args::{Cli, Command},
    cluster::Cluster,
    error::Error,
};

/// Exit code: a check has failed, or a gateway or a forward is not ready.
const FAILED: u8 = 1;
/// Exit code: something could not be read.
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::tell(&format!("error: {}", error.with_causes()));
            ExitCode::from(error.code())
        }
    }
}

fn start(cli: &Cli) -> Result<u8, Error> {
    if let Command::Completion { shell } = &cli.command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "kubectl-portlane", &mut script);
        output::write(&String::from_utf8_lossy(&script))?;
        return Ok(0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(run(cli)))
}

async fn run(cli: &Cli) -> Result<u8, Error> {
    let cluster = Cluster::connect(&cli.connection).await?;
    let is_complete = match &cli.command {
        Command::Status(args) => {
            return Ok(match Box::pin(status::run(&cluster, args)).await? {
                Verdict::Ok => 0,
                Verdict::Failed => FAILED,
                Verdict::Incomplete => INCOMPLETE,
            });
        }
        Command::Describe(args) => Box::pin(describe::run(&cluster, args)).await?,
        Command::Logs(args) => Box::pin(logs::run(&cluster, args)).await?,
        Command::Completion { .. } => true,
    };
    Ok(if is_complete { 0 } else { INCOMPLETE })
}
