//! The tests by what they need.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use harness::programs;
use images::ImageError;

use crate::setup;

/// What a test needs to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Tier {
    /// Nothing but Rust: the pure core, and the built programs on sockets.
    Pure,
    /// A real API server.
    Api,
    /// A real node.
    Node,
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Build(#[from] programs::BuildError),
    #[error(transparent)]
    Packages(#[from] programs::PackageError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Assets(#[from] programs::IncompleteAssets),
    #[cfg(not(target_os = "linux"))]
    #[error("a node needs Linux; use a cluster that you have (docs/testing.md)")]
    NotLinux,
    #[error(transparent)]
    Missing(#[from] programs::Missing),
    #[error("cannot run {0}: {1}")]
    Start(String, #[source] std::io::Error),
    #[error("`{0}` failed ({1})")]
    Command(String, ExitStatus),
}

impl Tier {
    pub(crate) fn or_all(tiers: Vec<Self>) -> Vec<Self> {
        if tiers.is_empty() { vec![Self::Pure, Self::Api, Self::Node] } else { tiers }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Api => "api",
            Self::Node => "node",
        }
    }

    /// Whether it needs the programs of this folder of `tests/programs`.
    pub(crate) fn needs(self, module: &str) -> bool {
        match self {
            Self::Pure => false,
            Self::Api => matches!(module, "etcd" | "kubernetes-1.34" | "kubernetes-1.37"),
            Self::Node => module != "kubernetes-1.37",
        }
    }

    /// Arguments of the `cargo test` runs that make up the tier.
    fn runs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Pure => &[
                &["--workspace", "--exclude", "portlane-tests"],
                &["-p", "portlane-tests", "--lib", "--test", "sockets"],
            ],
            Self::Api => &[&["-p", "portlane-tests", "--test", "api"]],
            Self::Node => &[&["-p", "portlane-tests", "--test", "node"]],
        }
    }
}

/// Runs the tests of these tiers; the first that fails ends it.
pub(crate) fn run(tiers: &[Tier]) -> Result<(), TaskError> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut measure = |name: &'static str, work: &mut dyn FnMut() -> Result<(), TaskError>| {
        let started = Instant::now();
        let done = work();
        times.push((name, started.elapsed()));
        done
    };
    let all = || -> Result<(), TaskError> {
        if tiers != [Tier::Pure] {
            measure("setup", &mut || setup::run(tiers))?;
        }
        for tier in tiers {
            measure(tier.name(), &mut || tier.runs().iter().try_for_each(|arguments| cargo_test(arguments)))?;
        }
        Ok(())
    };
    let done = { all }();
    for (name, time) in times {
        eprintln!("{name:>6}  {:>4} s", time.as_secs());
    }
    done
}

fn cargo_test(arguments: &[&str]) -> Result<(), TaskError> {
    let mut command = images::cargo();
    command.arg("test").args(arguments);
    let status = command.status().map_err(|error| TaskError::Start("cargo".to_owned(), error))?;
    if status.success() {
        Ok(())
    } else {
        Err(TaskError::Command(format!("cargo test {}", arguments.join(" ")), status))
    }
}
