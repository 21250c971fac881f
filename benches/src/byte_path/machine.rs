//! The machine and the versions, for the line above the tables.

use std::{fs, path::Path, process::Command, thread};

use crate::subject::{Kind, Programs};

/// A forwarder that is not installed.
pub(crate) fn is_missing(kind: Kind) -> bool {
    kind.program().is_some_and(|(program, option)| Command::new(program).arg(option).output().is_err())
}

/// One line: kernel, processor, CPUs, and the versions of the forwarders.
pub(crate) fn facts(programs: &Programs, kinds: &[Kind]) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let mut facts = vec![format!("Linux {}", kernel.trim()), processor(), format!("{cpus} CPUs")];
    facts.push(format!("portlane-proxy {}, static, {}", env!("CARGO_PKG_VERSION"), size(&programs.shipped)));
    if let Some(program) = &programs.glibc {
        facts.push(format!("with glibc {}", size(program)));
    }
    let mut versions: Vec<String> = kinds.iter().filter_map(|kind| version(*kind)).collect();
    versions.dedup();
    facts.extend(versions);
    facts.join("; ")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "processor unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

fn size(program: &Path) -> String {
    let bytes = fs::metadata(program).map_or(0, |metadata| metadata.len());
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
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
