//! The programs that tests start, built before the tests: a build inside the first test would count as that test's time.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use harness::PROGRAMS;
use serde_json::Value;

use super::start_error;
use crate::error::TaskError;

/// Builds the programs; returns their folder.
///
/// `--workspace --tests` selects the packages and features with which the test programs were compiled, so that only the
/// programs themselves are left to build.
pub(crate) fn build() -> Result<PathBuf, TaskError> {
    let mut cargo = images::cargo();
    cargo.args(["build", "--workspace", "--tests", "--message-format=json-render-diagnostics"]);
    for program in PROGRAMS {
        cargo.args(["--bin", program]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(start_error)?;
    if !output.status.success() {
        return Err(TaskError::Command("cargo build".to_owned(), output.status));
    }
    folder(&String::from_utf8_lossy(&output.stdout)).map_err(TaskError::Program)
}

/// Returns the folder of all programs, from the messages of cargo; or the first program that cargo did not report.
fn folder(messages: &str) -> Result<PathBuf, &'static str> {
    let built: Vec<PathBuf> = messages.lines().filter_map(executable).collect();
    let mut folder = PathBuf::new();
    for program in PROGRAMS {
        let path = built.iter().find(|path| path.file_name().is_some_and(|name| name == program)).ok_or(program)?;
        path.parent().unwrap_or(Path::new("")).clone_into(&mut folder);
    }
    Ok(folder)
}

/// Returns the program in a message of cargo. `None`: the message is about something else, such as a test program.
fn executable(line: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_program = message["reason"] == "compiler-artifact" && message["profile"]["test"] == false;
    is_program.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(path: &str, test: bool) -> String {
        format!(r#"{{"reason":"compiler-artifact","profile":{{"test":{test}}},"executable":"{path}"}}"#)
    }

    fn all_but(missing: &str) -> String {
        let built = PROGRAMS.into_iter().filter(|program| *program != missing);
        let lines: Vec<String> = built.map(|program| artifact(&format!("/w/target/debug/{program}"), false)).collect();
        lines.join("\n")
    }

    #[test]
    fn the_programs_are_in_the_folder_that_cargo_reports() {
        let library = r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#;
        let tests = artifact("/w/target/debug/deps/portlane-1", true);
        let messages = format!("{library}\n{tests}\n{}\n{{\"reason\":\"build-finished\"}}", all_but(""));
        assert_eq!(folder(&messages), Ok(PathBuf::from("/w/target/debug")));
    }

    #[test]
    fn a_program_that_was_not_built_is_named() {
        assert_eq!(folder(&all_but("kubectl-portlane")), Err("kubectl-portlane"));
        let only_its_tests = artifact("/w/target/debug/deps/portlane", true);
        assert_eq!(folder(&format!("{}\n{only_its_tests}", all_but("portlane"))), Err("portlane"));
    }
}
