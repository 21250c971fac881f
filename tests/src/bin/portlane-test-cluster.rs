//! Keeps one test cluster for as long as its standard input is open.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    harness::keeper()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("test clusters need Linux");
    ExitCode::FAILURE
}
