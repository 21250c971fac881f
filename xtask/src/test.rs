//! Runs tests by tier, and says how long each took.

use std::time::{Duration, Instant};

use crate::{error::TaskError, setup, tier::Tier};

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
