//! Builds a module's programs into the cache, once, whoever asks first.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Instant,
};

use super::{Module, Tool, is_program};

/// Why a program could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No Go.
    #[error("go is not on the PATH; the programs of Kubernetes are built from source: install Go 1.26 or later")]
    NoGo(#[source] io::Error),
    /// The compiler refused.
    #[error("go build of {program} in tests/programs/{module} failed ({status}); its messages stand above")]
    Failed {
        /// What was built.
        program: &'static str,
        /// From which module.
        module: &'static str,
        /// How the compiler ended.
        status: ExitStatus,
    },
    /// The cache cannot be written.
    #[error("{path} cannot be written; set PORTLANE_TEST_CACHE to a folder that can")]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Builds what is missing of a module. Two at once are safe: the second waits, and finds it done.
///
/// # Errors
/// No Go, a build that fails, a cache that cannot be written.
pub fn build(module: &Module, cache: &Path) -> Result<(), BuildError> {
    let folder = module.folder(cache);
    if missing(module, &folder).next().is_none() {
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
        eprintln!("{}: another run is building it; waiting", module.name);
        held.lock().map_err(at(&lock))?;
    }
    for tool in missing(module, &folder).collect::<Vec<_>>() {
        compile(module, tool, &folder)?;
    }
    Ok(())
}

fn missing<'a>(module: &'a Module, folder: &'a Path) -> impl Iterator<Item = &'a Tool> {
    module.tools.iter().filter(move |tool| !is_program(&folder.join(tool.program)))
}

fn compile(module: &Module, tool: &Tool, folder: &Path) -> Result<(), BuildError> {
    let started = Instant::now();
    eprintln!("{}: building {} ...", module.name, tool.program);
    // Renamed into place, so that a program that is there is whole.
    let fresh = folder.join(format!(".{}.new", tool.program));
    let status = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &module.linker_flags(), "-o"])
        .arg(&fresh)
        .arg(tool.package)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(module.name))
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .status()
        .map_err(BuildError::NoGo)?;
    if !status.success() {
        return Err(BuildError::Failed { program: tool.program, module: module.name, status });
    }
    let place = folder.join(tool.program);
    fs::rename(&fresh, &place).map_err(|source| BuildError::Cache { path: place, source })?;
    eprintln!("{}: {} built in {} s", module.name, tool.program, started.elapsed().as_secs());
    Ok(())
}
