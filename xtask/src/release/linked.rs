//! Queries cargo for the crates that are linked into a program, and reads their licence texts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use images::{Checkout, Target};

use super::{
    crates::{self, Crate, Id, Tree},
    licences,
    source::output,
};
use crate::error::{ReleaseError, TaskError};

/// Depth of the search for licence texts: a crate keeps those of its parts below the parts.
const DEPTH: usize = 3;

/// Every crate of the lockfile for any target.
pub(crate) fn crates(checkout: &Checkout) -> Result<BTreeMap<Id, Crate>, TaskError> {
    let mut cargo = images::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]).current_dir(&checkout.root);
    let metadata = output(&mut cargo, "cargo metadata")?;
    let lock = checkout.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(ReleaseError::file(&lock))?;
    let crates = crates::parse(&metadata, &lock);
    crates.ok_or_else(|| ReleaseError::Output("cargo metadata".to_owned()).into())
}

/// Returns the crates that are linked into a program: `cargo tree` selects features like a build of this package alone.
/// Macros run in the compiler, and are not linked.
pub(crate) fn tree(checkout: &Checkout, package: &str, target: Target) -> Result<Tree, TaskError> {
    let mut cargo = images::cargo();
    cargo.args(["tree", "--locked", "--prefix", "depth", "--edges", "normal,no-proc-macro", "--charset", "ascii"]);
    cargo.args(["--package", package, "--target", target.triple()]).current_dir(&checkout.root);
    let tree = Tree::parse(&output(&mut cargo, "cargo tree")?);
    tree.ok_or_else(|| ReleaseError::Output("cargo tree".to_owned()).into())
}

/// Returns the file of licence texts of all crates that are linked into these programs.
pub(crate) fn notices(trees: &[&Tree], crates: &BTreeMap<Id, Crate>) -> Result<String, TaskError> {
    let ids: BTreeSet<_> = trees.iter().flat_map(|tree| &tree.nodes).collect();
    let mut found = Vec::new();
    for id in ids {
        let Some(one) = crates.get(id) else {
            return Err(ReleaseError::UnknownCrate { krate: id.name.clone(), version: id.version.clone() }.into());
        };
        if !one.is_foreign {
            continue;
        }
        let mut files = Vec::new();
        read(&one.folder, DEPTH, &mut files)?;
        let texts = licences::texts(id, one, files)?;
        found.push((id.clone(), one.licence.clone().unwrap_or_else(|| "see below".to_owned()), texts));
    }
    Ok(licences::document(&found))
}

/// Reads the licence texts below a folder, in the order of their paths.
fn read(folder: &Path, depth: usize, texts: &mut Vec<String>) -> Result<(), ReleaseError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(ReleaseError::file(folder))? {
        paths.push(entry.map_err(ReleaseError::file(folder))?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if depth > 1 {
                read(&path, depth - 1, texts)?;
            }
        } else if licences::is_text(&path) {
            let text = fs::read(&path).map_err(ReleaseError::file(&path))?;
            texts.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(())
}
