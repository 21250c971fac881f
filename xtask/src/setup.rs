//! Everything that the tests need beside Rust.

use std::time::Instant;

use harness::programs::{self, Module};

use crate::{error::TaskError, tier::Tier};

/// Builds and installs what these tiers need. Safe to run twice, and twice at once.
pub(crate) fn run(tiers: &[Tier]) -> Result<(), TaskError> {
    if programs::existing_cluster().is_some() {
        eprintln!("setup: {} is set: the tests use that cluster, nothing is built", programs::EXISTING_CLUSTER);
        return Ok(());
    }
    let started = Instant::now();
    if tiers.contains(&Tier::Node) {
        programs::install_packages()?;
    }
    let given = programs::check_assets()?;
    // What an API server needs is in the given folder; a node runs versions that fit each other.
    let needs = |tier: &Tier, module: &Module| tier.needs(module.name) && !(given && *tier == Tier::Api);
    for module in Module::ALL.iter().filter(|module| tiers.iter().any(|tier| needs(tier, module))) {
        programs::build(module, &programs::cache())?;
    }
    eprintln!(
        "setup: all there, after {} s; programs are in {}",
        started.elapsed().as_secs(),
        programs::cache().display()
    );
    Ok(())
}
