//! `portlane`: runs, checks and translates `PortForward` manifests without a cluster.

mod admission;
mod args;
mod check;
mod manifest;
mod misspelt;
mod options;
mod run;
mod store;
mod table;
mod verdicts;
mod world;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A path of `-f`.
    #[error("cannot read {0}")]
    Files(String, #[source] io::Error),
    /// Standard input had no valid object and cannot change.
    #[error("there is no valid PortForward in the input")]
    NothingToRun,
    /// Printing the document.
    #[error("cannot print the configuration")]
    Yaml(#[from] serde_yaml::Error),
    /// The rules of the API.
    #[error("cannot read the built-in rules")]
    Rules(#[from] serde_json::Error),
    /// The data plane.
    #[error(transparent)]
    Start(#[from] proxy::handle::StartError),
    /// The data plane has ended by itself.
    #[error(transparent)]
    Ended(#[from] proxy::handle::Ended),
    /// Signals or a runtime.
    #[error("the system refused")]
    System(#[from] io::Error),
}

impl Error {
    fn files(paths: &[PathBuf], error: io::Error) -> Self {
        let missing = paths.iter().find(|path| path.as_os_str() != "-" && std::fs::metadata(path).is_err());
        Self::Files(missing.map_or_else(|| "the files".to_owned(), |path| path.display().to_string()), error)
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args).map(|()| true),
        Command::Validate(input) => check::validate(&input),
        Command::Translate(args) => check::translate_to_stdout(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portlane", &mut script);
            check::print(&script).map(|()| true).map_err(Error::from)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", run::chain(&error));
            ExitCode::FAILURE
        }
    }
}
