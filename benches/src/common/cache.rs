//! Programs that are measured, built or fetched once, beside those that tests build.

use std::{fs, path::PathBuf, process::Command};

use harness::programs;
use images::{Checkout, Platform, Profile};

/// Builds `portlane` as for a release. `Err`: it does not build.
pub(crate) fn portlane() -> Result<PathBuf, String> {
    eprintln!("building portlane as for a release");
    let built = Checkout::here().build("portlane", Platform::here().into(), Profile::Release);
    built.map_err(|error| harness::chain(&error))
}

/// The program of a peer. `None`: there is none, and the reason was printed.
pub(crate) fn told(name: &str, built: Result<PathBuf, String>) -> Option<PathBuf> {
    built.inspect_err(|why| eprintln!("{name} is not measured: {why}")).ok()
}

/// The folder of a peer.
pub(crate) fn folder(name: &str) -> Result<PathBuf, String> {
    let folder = programs::cache().join("peers").join(name);
    let made = fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
    made.map_err(|error| format!("cannot create {}: {error}", folder.display()))
}

/// Runs a command to its end, whose messages people see.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status}), see the messages above")),
        Err(error) => Err(format!("cannot run {name}: {error}")),
    }
}
