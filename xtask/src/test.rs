//! Runs tests by tier and prints the time of each step and the slowest tests.

mod binary;
mod clock;
mod documentation;
#[cfg(test)]
mod limits;
mod machine;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod pictures;
mod programs;
#[cfg(test)]
mod purity;
#[cfg(test)]
mod rings;
mod space;
mod summary;
#[cfg(test)]
mod tokens;

use std::{env, path::Path, process::Stdio, thread, time::Instant};

use self::{binary::TestBinary, machine::Watch, summary::Summary};
use crate::{background::Background, error::TaskError, image, setup, tier::Tier};

/// Runs the tests of these tiers. The first test program that fails ends the run.
///
/// Programs of Kubernetes are built beside the compilation and the tier that needs none of them, images beside the
/// tests that start no node.
pub(crate) fn run(tiers: &[Tier]) -> Result<(), TaskError> {
    let mut summary = Summary::default();
    let started = Instant::now();
    space::print();
    let watch = Watch::start();
    let done = run_tiers(tiers, &mut summary);
    summary.step("total", started.elapsed());
    eprint!("{summary}");
    if let Some(seen) = watch.stop() {
        eprint!("{seen}");
    }
    space::print();
    done
}

fn run_tiers(tiers: &[Tier], summary: &mut Summary) -> Result<(), TaskError> {
    let mut programs = None;
    if tiers != [Tier::Pure] {
        let setup = summary.measure("packages", || setup::prepare(tiers))?;
        programs = setup.map(|setup| setup.build_in_background(tiers));
    }
    let tests = summary.measure("compile", compile)?;
    let under_test = summary.measure("programs under test", programs::build)?;
    let mut images = if tiers.contains(&Tier::Node) { Some(image::build_in_background()?) } else { None };
    for tier in tiers {
        if *tier != Tier::Pure {
            wait("programs", programs.take(), summary)?;
        }
        let started = Instant::now();
        let done = run_tier(*tier, &tests, &under_test, &mut images, summary);
        summary.step(tier.name(), started.elapsed());
        done?;
    }
    Ok(())
}

/// Waits for a build, unless that was done before.
fn wait(what: &str, build: Option<Background>, summary: &mut Summary) -> Result<(), TaskError> {
    let Some(build) = build else { return Ok(()) };
    let took = summary.measure(&format!("wait for {what}"), || build.wait())?;
    summary.step(&format!("build of {what}, in the background"), took);
    Ok(())
}

fn run_tier(
    tier: Tier,
    tests: &[TestBinary],
    programs: &Path,
    images: &mut Option<Background>,
    summary: &mut Summary,
) -> Result<(), TaskError> {
    let step = |name: &str| format!("  {}  {name}", tier.name());
    let threads = tier.threads(thread::available_parallelism().map_or(1, usize::from), requested_threads());
    for test in tests.iter().filter(|test| test.tier == tier) {
        if test.starts_nodes() {
            // Even a build of a lower priority would take the CPU of pods that request none.
            wait("images", images.take(), summary)?;
        }
        for part in test.parts() {
            let (times, done) = summary.measure(&step(&part.0), || test.run(&part, threads, programs));
            summary.tests(tier, times);
            done?;
        }
    }
    let documented = |test: &TestBinary| test.library.as_deref().is_some_and(documentation::has_tests);
    if tier == Tier::Pure && tests.iter().any(documented) {
        summary.measure(&step("documentation"), test_documentation)?;
    }
    Ok(())
}

/// `RUST_TEST_THREADS`, if it is a positive number.
fn requested_threads() -> Option<usize> {
    env::var("RUST_TEST_THREADS").ok()?.parse::<usize>().ok().filter(|threads| *threads > 0)
}

/// Compiles all test programs of the workspace, in the order in which they run. One run of cargo for all tiers: each
/// selection of packages has features of its own, and would compile dependencies again.
fn compile() -> Result<Vec<TestBinary>, TaskError> {
    let mut cargo = images::cargo();
    cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = cargo.stderr(Stdio::inherit()).output().map_err(start_error)?;
    if !output.status.success() {
        return Err(TaskError::Command("cargo test --no-run".to_owned(), output.status));
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut tests: Vec<_> = messages.lines().filter_map(|line| TestBinary::parse(line, workspace)).collect();
    // Fast programs first, so that a run fails early: unit tests, then sockets; `odd` and `peers` before `node`.
    tests.sort_by_cached_key(|test| {
        let place =
            ["tests: sockets", "tests: odd", "tests: peers", "tests: node"].iter().position(|late| *late == test.label);
        (place, test.label.clone())
    });
    Ok(tests)
}

fn test_documentation() -> Result<(), TaskError> {
    let status = images::cargo().args(["test", "--workspace", "--doc"]).status().map_err(start_error)?;
    if status.success() { Ok(()) } else { Err(TaskError::Command("cargo test --doc".to_owned(), status)) }
}

fn start_error(error: std::io::Error) -> TaskError {
    TaskError::Start("cargo".to_owned(), error)
}
