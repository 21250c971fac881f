//! `cargo xtask`: setup, tests by tier, images, a node to play with.

mod error;
mod image;
#[cfg(target_os = "linux")]
mod node;
mod setup;
mod test;
mod tier;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use tier::Tier;

/// What a developer of Portlane runs. `docs/testing.md` says more.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Runs tests, all tiers if none is named; builds and installs first what they need.
    Test {
        /// Which tiers.
        #[arg(value_enum)]
        tiers: Vec<Tier>,
    },
    /// Builds the images as OCI archives in target/images, for `ctr`, `docker load` and `kind load image-archive`.
    Images {
        /// For another machine.
        #[arg(long, value_enum)]
        platform: Option<image::Platform>,
    },
    /// Starts a node with the images and CRDs of this checkout and opens a shell with KUBECONFIG, kubectl and helm.
    Node {
        /// Runs this instead of a shell.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Builds the programs of Kubernetes and installs what a node needs; what is there already is left alone.
    Setup {
        /// For which tiers; all if none is named.
        #[arg(value_enum)]
        tiers: Vec<Tier>,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Test { tiers } => test::run(&Tier::or_all(tiers)),
        Task::Images { platform } => image::run(platform),
        #[cfg(target_os = "linux")]
        Task::Node { command } => node::run(&command),
        #[cfg(not(target_os = "linux"))]
        Task::Node { .. } => Err(error::TaskError::NotLinux),
        Task::Setup { tiers } => setup::run(&Tier::or_all(tiers)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", harness::chain(&error));
            ExitCode::FAILURE
        }
    }
}
