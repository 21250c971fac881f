//! `cargo xtask`: setup, tests by tier, images, releases, the site of the documentation, a node for experiments.

mod background;
mod book;
mod error;
mod image;
#[cfg(target_os = "linux")]
mod node;
mod release;
mod setup;
mod test;
mod tier;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use tier::Tier;

/// Tasks of a developer of Portlane. See `docs/testing.md`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Runs tests of the given tiers (default: all). Installs and builds what the tests need.
    Test {
        /// Tiers to run.
        #[arg(value_enum)]
        tiers: Vec<Tier>,
    },
    /// Builds the images as OCI archives in target/images, for `ctr`, `docker load` and `kind load image-archive`.
    Images {
        /// Platform of the images (default: this machine's).
        #[arg(long, value_enum)]
        platform: Option<image::Platform>,
    },
    /// Makes everything of a release: programs, images, charts, SBOMs, licences, notes, checksums. See docs/release.md.
    Release(release::Arguments),
    /// Sets the version of this checkout wherever it is written, and cuts the changelog.
    Bump {
        /// Version, such as 1.2.3 or 1.2.3-rc.1.
        version: String,
    },
    /// Builds the site of docs with mdBook into target/book, and checks its pages, links and search. Installs mdBook.
    Book,
    /// Starts a node with the images and CRDs of this checkout, and opens a shell with KUBECONFIG, kubectl and helm.
    Node {
        /// Command to run instead of a shell.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Builds the programs of Kubernetes and installs what a node needs. What exists stays unchanged.
    Setup {
        /// Tiers to prepare (default: all).
        #[arg(value_enum)]
        tiers: Vec<Tier>,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Test { tiers } => test::run(&Tier::or_all(tiers)),
        Task::Images { platform } => image::run(platform),
        Task::Release(arguments) => release::run(&arguments),
        Task::Bump { version } => release::bump(&version),
        Task::Book => book::run(),
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
