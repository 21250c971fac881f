//! The machine and the versions, for the line above the tables.

use std::process::Command;

use crate::{
    host::{self, size},
    subject::{Kind, Programs},
};

/// A forwarder that is not installed.
pub(crate) fn is_missing(kind: Kind) -> bool {
    kind.program().is_some_and(|(program, option)| Command::new(program).arg(option).output().is_err())
}

/// One line: kernel, processor, CPUs, and the versions of the forwarders.
pub(crate) fn facts(programs: &Programs, kinds: &[Kind]) -> String {
    let mut facts = vec![host::facts()];
    facts.push(format!("portlane-proxy {}, static, {}", env!("CARGO_PKG_VERSION"), size(&programs.shipped)));
    if let Some(program) = &programs.glibc {
        facts.push(format!("with glibc {}", size(program)));
    }
    let mut versions: Vec<String> = kinds.iter().filter_map(|kind| version(*kind)).collect();
    versions.dedup();
    facts.extend(versions);
    facts.join("; ")
}

/// The first line that names the version.
fn version(kind: Kind) -> Option<String> {
    let (program, option) = kind.program()?;
    let output = Command::new(program).arg(option).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.contains("ersion"))?;
    // Without the address of the project, which some add.
    let words = line.split_whitespace().take_while(|word| !word.starts_with("http") && *word != "on");
    Some(words.collect::<Vec<_>>().join(" "))
}
