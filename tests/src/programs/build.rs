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
    #[error("{path} cannot be read or written; PORTLANE_TEST_CACHE says where built programs go")]
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
    // What a run that was killed has left: nobody else writes here now.
    for left in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if left.file_name().to_string_lossy().starts_with('.') && left.path() != lock {
            let _ = fs::remove_file(left.path());
        }
    }
    for tool in missing(module, &folder).collect::<Vec<_>>() {
        compile(module, tool, &folder)?;
    }
    Ok(())
}

/// The folder of the modules.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

fn missing<'a>(module: &'a Module, folder: &'a Path) -> impl Iterator<Item = &'a Tool> {
    module.tools.iter().filter(move |tool| !is_program(&folder.join(tool.program)))
}

fn compile(module: &Module, tool: &Tool, folder: &Path) -> Result<(), BuildError> {
    let started = Instant::now();
    eprintln!("{}: building {} ...", module.name, tool.program);
    // Renamed into place, so that a program that is there is whole.
    // A compiler may outlive a run that was killed, so each run has a name of its own.
    let fresh = folder.join(format!(".{}.{}", tool.program, std::process::id()));
    let status = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &module.linker_flags(), "-o"])
        .arg(&fresh)
        .arg(tool.package)
        .current_dir(modules().join(module.name))
        .env("CGO_ENABLED", "0")
        // What would make another program of the same sources.
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .env_remove("GOEXPERIMENT")
        .status()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if modules().is_dir() => BuildError::NoGo(source),
            _ => BuildError::Cache { path: modules(), source },
        })?;
    if !status.success() {
        return Err(BuildError::Failed { program: tool.program, module: module.name, status });
    }
    let place = folder.join(tool.program);
    fs::rename(&fresh, &place).map_err(|source| BuildError::Cache { path: place, source })?;
    eprintln!("{}: {} built in {} s", module.name, tool.program, started.elapsed().as_secs());
    Ok(())
}
