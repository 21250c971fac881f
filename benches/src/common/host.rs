//! The machine, for the line above the tables.

use std::{fs, path::Path, thread};

/// Kernel, processor and CPUs.
pub(crate) fn facts() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}; {}; {cpus} CPUs", kernel.trim(), processor())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "processor unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The size of a program in words.
pub(crate) fn size(program: &Path) -> String {
    let bytes = fs::metadata(program).map_or(0, |metadata| metadata.len());
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
