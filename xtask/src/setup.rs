//! Sets up the requirements of tests besides Rust: packages of the operating system and programs of Kubernetes.

use std::time::Instant;

use harness::programs::{self, BuildError, Module};

use crate::{background::Background, error::TaskError, tier::Tier};

/// Installs and builds the requirements of these tiers. Safe to run again, and twice at once.
pub(crate) fn run(tiers: &[Tier]) -> Result<(), TaskError> {
    let started = Instant::now();
    let Some(setup) = prepare(tiers)? else { return Ok(()) };
    for tier in tiers {
        setup.build(*tier)?;
    }
    let seconds = started.elapsed().as_secs();
    eprintln!("setup: complete after {seconds} s; programs are in {}", programs::cache().display());
    Ok(())
}

/// Installs the packages that these tiers need, and checks the folder that the user gave. `None`: the tests use an
/// existing cluster and need no programs.
pub(crate) fn prepare(tiers: &[Tier]) -> Result<Option<Setup>, TaskError> {
    if programs::existing_cluster().is_some() {
        eprintln!("setup: {} is set: the tests use that cluster, nothing is built", programs::EXISTING_CLUSTER);
        return Ok(None);
    }
    if tiers.contains(&Tier::Node) {
        programs::install_packages()?;
    }
    Ok(Some(Setup { given: programs::check_assets()? }))
}

/// A machine with all packages. The programs of Kubernetes may be missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Whether the user gave the programs of an API server.
    given: bool,
}

impl Setup {
    /// Builds the missing programs of a tier.
    fn build(self, tier: Tier) -> Result<(), BuildError> {
        let cache = programs::cache();
        Module::ALL.iter().try_for_each(|module| {
            programs::build(module, |program| tier.needs(module.name, program, self.given), &cache)
        })
    }

    /// Builds the missing programs of these tiers while the caller continues.
    pub(crate) fn build_in_background(self, tiers: &[Tier]) -> Background {
        let tiers = tiers.to_vec();
        Background::start(move || {
            tiers.into_iter().try_for_each(|tier| self.build(tier))?;
            Ok(())
        })
    }
}
