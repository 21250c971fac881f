//! `portlane`: runs, validates and translates `PortForward` manifests without a cluster, and inspects local processes.
//!
//! The library serves two programs: `portlane` itself, and the plugin of kubectl, which validates the same manifests
//! ([`validate`]), runs them with the Services of a cluster ([`run_with`]), and shows its reports the same way
//! ([`output`], [`view`]).

mod admission;
#[cfg(feature = "tunnels")]
mod agent;
mod args;
mod check;
#[cfg(test)]
#[cfg(all(feature = "jetstream", feature = "tunnels"))]
mod documented;
mod error;
mod forward;
mod input;
#[cfg(feature = "durable")]
mod letters;
mod listing;
mod local;
mod manifest;
mod misspelt;
mod options;
pub mod output;
mod plugin;
mod run;
mod services;
mod spelling;
mod state;
mod store;
mod table;
mod terminal;
mod verdicts;
pub mod view;
mod world;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use proxy::log::printable;
pub use proxy_api::with_causes;

use self::args::{Cli, Command};
pub use self::{
    args::refusal,
    check::Validate,
    error::Error,
    input::Input,
    listing::Listing,
    run::{Run, run_with},
    services::{Found, Services},
};

/// Exit code: wrong arguments, no such forward, or nothing to show.
const UNUSABLE: u8 = 2;

/// Runs the command in the arguments of this process.
pub fn start() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    if plugin::is_meant(&words) {
        return unusable(&plugin::become_plugin(&words));
    }
    #[cfg(not(feature = "tunnels"))]
    if words.first().is_some_and(|word| word == "agent") {
        return unusable(&Error::NoTunnels);
    }
    let result = match Cli::read().command {
        Command::Run(args) => run::run(&args).map(|()| true),
        Command::Validate(args) => check::validate(&args),
        Command::Translate(args) => check::translate_to_stdout(&args),
        #[cfg(feature = "tunnels")]
        Command::Agent(args) => return agent::run(&args),
        #[cfg(feature = "durable")]
        Command::Letters(args) => {
            return letters::print(&args).map_or_else(|error| unusable(&error), |()| ExitCode::SUCCESS);
        }
        Command::Local(verb) => return local::run(&verb).map_or_else(|error| unusable(&error), ExitCode::from),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::with_cluster_verbs(), "portlane", &mut script);
            check::print(&script).map(|()| true).map_err(Error::from)
        }
    };
    if is_success(result) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs `portlane validate` with these arguments, with the same output. Returns true if the manifests were read and
/// have no problem.
#[must_use]
pub fn validate(args: &Validate) -> bool {
    is_success(check::validate(args))
}

/// Whether a command has found no problem. Prints the reason if the command failed.
fn is_success(result: Result<bool, Error>) -> bool {
    result.unwrap_or_else(|error| {
        explain(&error);
        false
    })
}

/// Prints why nothing can be shown, and returns the exit code.
fn unusable(error: &Error) -> ExitCode {
    explain(error);
    ExitCode::from(UNUSABLE)
}

/// Prints an error.
fn explain(error: &Error) {
    complain(&format!("error: {}", printable(&error.with_causes())));
}

/// Prints a line to standard error. A closed pipe is not a failure.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
