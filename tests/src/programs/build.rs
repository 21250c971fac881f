//! Builds the programs of a module into the cache, once for each digest of its pins.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Instant,
};

use super::{Module, Tool, is_program, packages::is_installed, report};

/// Lines of the compiler's output that an error repeats.
const MESSAGES: usize = 40;

/// Why a program could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Go is missing.
    #[error("go is not on the PATH; the programs of Kubernetes are built from source: install Go 1.26 or later")]
    NoGo,
    /// Go, or `setpriv` in front of it, does not start.
    #[error("cannot run go in {path}")]
    Start {
        /// Working directory of the build.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The compiler failed.
    #[error("go, for {program} in tests/programs/{module}, failed ({status}):\n{messages}")]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// Name of the module.
        module: &'static str,
        /// Exit status of the compiler.
        status: ExitStatus,
        /// The last lines that the compiler printed.
        messages: String,
    },
    /// The cache is not accessible.
    #[error("{path} cannot be read or written; PORTLANE_TEST_CACHE says where built programs go")]
    Cache {
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// Builds the missing programs of a module whose names are `wanted`. Two processes may build at once: the second one
/// waits for the first, then finds the programs built.
///
/// # Errors
/// Go is missing, a build fails, or the cache cannot be written.
pub fn build(module: &Module, wanted: impl Fn(&str) -> bool, cache: &Path) -> Result<(), BuildError> {
    let folder = module.folder(cache);
    let missing = || -> Vec<&'static Tool> {
        let tools = module.tools.iter();
        tools.filter(|tool| wanted(tool.program) && !is_program(&folder.join(tool.program))).collect()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Cache { path, source }
    };
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let lock = folder.join(".lock");
    let held = File::create(&lock).map_err(at(&lock))?;
    if held.try_lock().is_err() {
        report(&format!("{}: waiting for another process that builds this module", module.name));
        held.lock().map_err(at(&lock))?;
    }
    // Remains of a killed process: the lock excludes every other writer.
    for left in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if left.file_name().to_string_lossy().starts_with('.') && left.path() != lock {
            let _ = fs::remove_file(left.path());
        }
    }
    for tool in missing() {
        match tool.source {
            None => compile(module, tool, &folder)?,
            Some(source) => copy(module, source, tool, &folder)?,
        }
    }
    Ok(())
}

/// The folder of the modules.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

fn compile(module: &Module, tool: &Tool, folder: &Path) -> Result<(), BuildError> {
    if !is_installed("go") {
        return Err(BuildError::NoGo);
    }
    let started = Instant::now();
    report(&format!("{}: building {} ...", module.name, tool.program));
    let fresh = unfinished(tool, folder);
    let flags = module.linker_flags();
    let build = ["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &flags, "-o"];
    run(module, tool, images::tied("go").args(build).arg(&fresh).arg(tool.package))?;
    let program = folder.join(tool.program);
    fs::rename(&fresh, &program).map_err(|source| BuildError::Cache { path: program, source })?;
    report(&format!("{}: {} built in {} s", module.name, tool.program, started.elapsed().as_secs()));
    Ok(())
}

/// Copies a file of the sources, which the build of a program has downloaded.
fn copy(module: &Module, source: &str, tool: &Tool, folder: &Path) -> Result<(), BuildError> {
    let sources =
        run(module, tool, images::tied("go").args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", source]))?;
    let file = Path::new(sources.trim()).join(tool.package);
    let (fresh, copied) = (unfinished(tool, folder), folder.join(tool.program));
    fs::copy(&file, &fresh).map_err(|source| BuildError::Cache { path: file, source })?;
    fs::rename(&fresh, &copied).map_err(|source| BuildError::Cache { path: copied, source })
}

/// Where a file is written before it is renamed into place, so that a file in the cache is complete. A compiler may
/// outlive a killed process, so the name has the number of the process.
fn unfinished(tool: &Tool, folder: &Path) -> PathBuf {
    folder.join(format!(".{}.{}", tool.program, std::process::id()))
}

/// Runs `go` in the folder of a module and gives its output.
fn run(module: &Module, tool: &Tool, go: &mut Command) -> Result<String, BuildError> {
    let place = modules().join(module.name);
    let output = go
        .current_dir(&place)
        .env("CGO_ENABLED", "0")
        // These variables would make a different program of the same sources.
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .env_remove("GOEXPERIMENT")
        // Captured: the output of tests goes to the same terminal.
        .output()
        .map_err(|source| BuildError::Start { path: place, source })?;
    if !output.status.success() {
        let messages = last_lines(&String::from_utf8_lossy(&output.stderr), MESSAGES);
        return Err(BuildError::Failed { program: tool.program, module: module.name, status: output.status, messages });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_the_last_lines_only() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\n", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
