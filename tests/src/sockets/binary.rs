//! Where the programs under test are: those of this checkout, and those of an earlier version.

use std::{env, path::PathBuf, sync::OnceLock};

/// The programs that tests start.
pub const PROGRAMS: [&str; 6] =
    ["portlane", "portlane-proxy", "portlane-operator", "portlane-echo", "kubectl-portlane", "portlane-test-cluster"];

/// Variable with a folder of [`PROGRAMS`] that are built of the sources as they are. `cargo xtask test` sets it for the
/// tests that it runs.
pub const FRESH_PROGRAMS: &str = "PORTLANE_TEST_PROGRAMS";

/// Variable with a folder of `portlane-proxy` and `portlane-operator` of an earlier version.
pub const EARLIER_PROGRAMS: &str = "PORTLANE_EARLIER";

/// The path of a program of this checkout. Without [`FRESH_PROGRAMS`], the first call builds all of them.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder(FRESH_PROGRAMS).unwrap_or_else(built)).join(name)
}

/// The path of a program of an earlier version; `None` without [`EARLIER_PROGRAMS`].
///
/// # Panics
/// The folder has no such program.
pub fn earlier(name: &str) -> Option<PathBuf> {
    let program = folder(EARLIER_PROGRAMS)?.join(name);
    assert!(program.is_file(), "{EARLIER_PROGRAMS} has no {name}: {} is no file", program.display());
    Some(program)
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Builds all programs; returns their folder.
fn built() -> PathBuf {
    let mut cargo = images::cargo();
    cargo.args([
        "build",
        "--quiet",
        "-p",
        "portlane",
        "-p",
        "portlane-proxy",
        "-p",
        "portlane-operator",
        "-p",
        "portlane-echo",
        "-p",
        "kubectl-portlane",
        "-p",
        "portlane-tests",
        "--bins",
    ]);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "building the programs failed");
    // target/debug/deps/test-123 or target/debug/xtask -> target/debug
    let own = env::current_exe().expect("own path");
    let folder = own.parent().expect("a folder");
    if folder.ends_with("deps") { folder.parent().expect("target folder").to_owned() } else { folder.to_owned() }
}
