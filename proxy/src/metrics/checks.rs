//! Series of active checks.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use prometheus_client::encoding::DescriptorEncoder;

use super::{family, labels};
use crate::shared::Shared;

/// The checks of listeners that have any.
pub(super) fn checks_text(out: &mut DescriptorEncoder<'_>, all: &[Arc<Shared>]) -> Result<(), std::fmt::Error> {
    let checked = move || all.iter().filter(|shared| shared.spec.load().health_check.is_some());
    let checks = checked().flat_map(|shared| {
        let counters = &shared.counters;
        [("passed", &counters.checks_passed), ("failed", &counters.checks_failed)].map(|(result, count)| {
            let mut labels = labels(shared);
            labels.push(("result", result));
            (labels, count.load(Relaxed))
        })
    });
    family(out, ("portlane_health_checks", "Active health checks, by result."), true, checks)?;
    let waits = checked().map(|shared| (labels(shared), shared.counters.checks_waited.load(Relaxed)));
    let help = "Active health checks that waited for their turn because too many others ran.";
    family(out, ("portlane_health_check_waits", help), true, waits)
}
