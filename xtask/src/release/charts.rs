//! The charts of a release, packed by the helm of the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::programs::{self, KubernetesVersion, Module};

use super::{checksums::Files, source::output};
use crate::error::{ReleaseError, TaskError};

/// The charts.
const CHARTS: [&str; 2] = ["portlane-crds", "portlane"];

/// Returns the helm of the tests, built if necessary; or why it is not available.
pub(crate) fn helm() -> Result<PathBuf, String> {
    let find = || programs::built(KubernetesVersion::Oldest, "helm");
    if let Ok(helm) = find() {
        return Ok(helm);
    }
    let module = Module::ALL.iter().find(|module| module.name == "helm");
    let module = module.ok_or_else(|| "tests/programs has no helm".to_owned())?;
    programs::build(module, |program| program == "helm", &programs::cache()).map_err(|error| harness::chain(&error))?;
    find().map_err(|error| harness::chain(&error))
}

/// Packs the charts of a checkout. helm records the time in each file of a package, so the packages are packed again.
pub(crate) fn package(helm: &Path, root: &Path, scratch: &Path, time: u64) -> Result<Files, TaskError> {
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).map_err(ReleaseError::file(scratch))?;
    let mut files = Files::new();
    for chart in CHARTS {
        let mut command = Command::new(helm);
        command.arg("package").arg(root.join("charts").join(chart)).arg("--destination").arg(scratch);
        output(&mut command, "helm package")?;
    }
    for entry in fs::read_dir(scratch).map_err(ReleaseError::file(scratch))? {
        let path = entry.map_err(ReleaseError::file(scratch))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let package = fs::read(&path).map_err(ReleaseError::file(&path))?;
        let package = images::normalize(&package, time).map_err(|error| ReleaseError::Pack(name.clone(), error))?;
        files.insert(name, package);
    }
    let _ = fs::remove_dir_all(scratch);
    Ok(files)
}

/// Returns the CRDs in one file, for `kubectl apply --server-side -f`.
pub(crate) fn crds(root: &Path) -> Result<Vec<u8>, TaskError> {
    let folder = root.join("crds");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).map_err(ReleaseError::file(&folder))? {
        let path = entry.map_err(ReleaseError::file(&folder))?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut documents = String::new();
    for path in paths {
        documents += "---\n";
        documents += &fs::read_to_string(&path).map_err(ReleaseError::file(&path))?;
    }
    Ok(documents.into_bytes())
}
