//! Commands of the operating system, with a deadline.

use std::process::{Command, Stdio};

use super::ClusterError;

/// Longest run of a command, for timeout(1).
const LIMIT: &str = "30s";

/// Runs a command of the operating system.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, ClusterError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new("timeout")
        .args(["--signal=KILL", LIMIT, program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(ClusterError::io(format!("cannot run {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ClusterError::Command { command: command(), output })
}
