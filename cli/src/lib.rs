//! `portlane`: runs, validates and translates `PortForward` manifests without a cluster.
//!
//! A library for two programs: `portlane` itself, and the plugin of kubectl, which validates the same manifests
//! ([`validate`]), and runs them with the Services of a cluster ([`run_with`]).

mod admission;
mod args;
mod check;
mod error;
mod forward;
mod manifest;
mod misspelt;
mod options;
mod run;
mod services;
mod spelling;
mod store;
mod table;
mod terminal;
mod verdicts;
mod world;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;
use proxy::log::printable;

use self::args::{Cli, Command};
pub use self::{
    args::{Input, Run},
    error::Error,
    run::run_with,
    services::{Found, Services},
};

/// Does what the arguments of this process ask for.
pub fn start() -> ExitCode {
    let result = match Cli::read().command {
        Command::Run(args) => run::run(&args).map(|()| true),
        Command::Validate(input) => check::validate(&input),
        Command::Translate(args) => check::translate_to_stdout(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portlane", &mut script);
            check::print(&script).map(|()| true).map_err(Error::from)
        }
    };
    if is_success(result) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does what `portlane validate` does with these arguments, in the same words. Returns true if the manifests were read
/// and have no problem.
#[must_use]
pub fn validate(input: &Input) -> bool {
    is_success(check::validate(input))
}

/// Whether a command has found no problem. Prints why it failed, if it did.
fn is_success(result: Result<bool, Error>) -> bool {
    result.unwrap_or_else(|error| {
        complain(&format!("error: {}", printable(&error.with_causes())));
        false
    })
}

/// Prints a line to standard error. Whoever reads it may have gone, which is no reason to fail.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
