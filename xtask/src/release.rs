//! Makes all files of a version, in a folder: `docs/release.md`.

mod changelog;
mod charts;
mod checksums;
mod crates;
mod licences;
mod linked;
mod make;
mod plan;
mod sbom;
mod source;
mod verify;
mod version;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use images::{Checkout, Here};

use self::{
    checksums::{Files, SUMS},
    plan::Found,
    sbom::Release,
    source::Commit,
};
use crate::error::{ReleaseError, TaskError};

const CHANGELOG: &str = "CHANGELOG.md";

/// What to release, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Version that the checkout must have (default: the one that it has).
    #[arg(long)]
    version: Option<String>,
    /// Folder of the release (default: target/release-files/VERSION). An older release in it is replaced.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Make what can be made here. MISSING.txt in the folder says what is missing.
    #[arg(long)]
    allow_missing: bool,
    /// Build everything again, from a copy of the commit in another folder, and fail if a file differs.
    #[arg(long)]
    verify: bool,
}

/// Makes the release of this checkout.
pub(crate) fn run(arguments: &Arguments) -> Result<(), TaskError> {
    let checkout = Checkout::here();
    let version = agreed_version(&checkout.root)?;
    if let Some(wanted) = arguments.version.as_ref().filter(|wanted| **wanted != version) {
        return Err(ReleaseError::OtherVersion { here: version, wanted: wanted.clone() }.into());
    }
    let commit = Commit::read(&checkout.root)?;
    if arguments.verify && !commit.is_clean {
        return Err(ReleaseError::Uncommitted.into());
    }
    let found = Found {
        helm: charts::helm(),
        notes: notes(&checkout.root, &version)?,
        rust_notices: source::rust_notices(),
        is_committed: commit.is_clean,
    };
    let plan = plan::plan(&Here, found, |target| images::install(target).map_err(|error| harness::chain(&error)));
    for gap in &plan.gaps {
        eprintln!("release: missing: {gap}");
    }
    if !plan.gaps.is_empty() && !arguments.allow_missing {
        return Err(ReleaseError::Missing(plan.gaps.len()).into());
    }
    let release = Release {
        created: commit.date(),
        commit: commit.hash,
        repository: env!("CARGO_PKG_REPOSITORY").to_owned(),
        rust: source::rust_version()?,
        version,
    };
    let out = arguments.out.clone().unwrap_or_else(|| images::target().join("release-files").join(&release.version));
    refuse_foreign(&out)?;
    let files = make::make(&checkout, &plan, &release, commit.time)?;
    if arguments.verify {
        let folder = images::target().join("release-copy");
        verify::verify(&checkout.root, folder, &files, |copy| make::make(copy, &plan, &release, commit.time))?;
    }
    refuse_changed(&Commit::read(&checkout.root)?, &release.commit, commit.is_clean)?;
    write(&out, &files)?;
    report(&out, &files);
    Ok(())
}

/// Sets another version in every file of this checkout that states one, and cuts the changelog.
pub(crate) fn bump(new: &str) -> Result<(), TaskError> {
    if !version::is_version(new) {
        return Err(ReleaseError::Version(new.to_owned()).into());
    }
    let root = Checkout::here().root;
    let old = agreed_version(&root)?;
    let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let today = today.split('T').next().unwrap_or_default();
    let tracked = source::tracked(&root)?;
    let changelog = tracked.iter().find(|(path, _)| path == CHANGELOG).map_or("", |(_, text)| text.as_str());
    let cut = changelog::cut(changelog, new, today)?;
    for (path, text) in &tracked {
        let changed = if path == CHANGELOG { cut.clone() } else { version::set(path, text, &old, new) };
        if changed != *text {
            let path = root.join(path);
            fs::write(&path, changed).map_err(ReleaseError::file(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Returns the version of a checkout, on which all files that state one agree.
fn agreed_version(root: &Path) -> Result<String, TaskError> {
    let path = root.join("Cargo.toml");
    let manifest = fs::read_to_string(&path).map_err(ReleaseError::file(&path))?;
    let here = version::of_workspace(&manifest).ok_or(ReleaseError::NoVersion)?.to_owned();
    if !version::is_version(&here) {
        return Err(ReleaseError::Version(here).into());
    }
    for (path, text) in source::tracked(root)? {
        if let Some(found) = version::stated(&path, &text).into_iter().find(|found| *found != here) {
            return Err(ReleaseError::Disagreement { found: found.to_owned(), path, here }.into());
        }
    }
    Ok(here)
}

/// Returns the section of the changelog about a version, or why there is none.
fn notes(root: &Path, version: &str) -> Result<Result<String, String>, TaskError> {
    let path = root.join(CHANGELOG);
    let changelog = fs::read_to_string(&path).map_err(ReleaseError::file(&path))?;
    let notes = changelog::section(&changelog, version).map(ToOwned::to_owned);
    Ok(notes.ok_or_else(|| format!("{CHANGELOG} has no section {version}; `cargo xtask bump VERSION` cuts one")))
}

/// Fails if the folder has other contents or is a file, so that these are not replaced.
fn refuse_foreign(out: &Path) -> Result<(), ReleaseError> {
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none() || out.join(SUMS).is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_free { Ok(()) } else { Err(ReleaseError::NoRelease(out.to_owned())) }
}

/// Fails if the checkout was changed during the build, which takes long: the files would name a commit from which they
/// were not made.
fn refuse_changed(now: &Commit, hash: &str, was_clean: bool) -> Result<(), ReleaseError> {
    if now.hash == hash && now.is_clean == was_clean { Ok(()) } else { Err(ReleaseError::Changed) }
}

/// Writes the files beside the folder, and renames them into place: the folder has a complete release or none.
fn write(out: &Path, files: &Files) -> Result<(), ReleaseError> {
    let out = env::current_dir().map_err(ReleaseError::file(out))?.join(out);
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fresh = out.with_file_name(format!(".{name}.new"));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh).map_err(ReleaseError::file(&fresh))?;
    for (name, content) in files {
        let path = fresh.join(name);
        fs::write(&path, content).map_err(ReleaseError::file(&path))?;
    }
    let _ = fs::remove_dir_all(&out);
    fs::rename(&fresh, &out).map_err(ReleaseError::file(&out))
}

fn report(out: &Path, files: &Files) {
    for (name, content) in files {
        println!("{:>9} KiB  {name}", content.len().div_ceil(1024));
    }
    println!("the release is in {}", out.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_only_if_it_is_a_release() {
        let folder = images::target().join("tmp").join(format!("release-test-{}", std::process::id()));
        let files = |names: &[&str]| -> Files { names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect() };
        assert!(refuse_foreign(&folder).is_ok());
        write(&folder, &files(&[SUMS, "old"])).unwrap();
        assert!(refuse_foreign(&folder).is_ok());
        write(&folder, &files(&["new"])).unwrap();
        assert!(!folder.join("old").exists() && folder.join("new").exists());
        assert!(matches!(refuse_foreign(&folder), Err(ReleaseError::NoRelease(_))));
        let file = folder.join("new");
        assert!(matches!(refuse_foreign(&file), Err(ReleaseError::NoRelease(_))), "a file is no folder");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_checkout_that_was_edited_during_the_build_gives_no_release() {
        let commit = |hash: &str, is_clean| Commit { hash: hash.to_owned(), time: 0, is_clean };
        assert!(refuse_changed(&commit("a", true), "a", true).is_ok());
        assert!(refuse_changed(&commit("a", false), "a", false).is_ok(), "a trial, which names the gap");
        for changed in [commit("a", false), commit("b", true)] {
            assert!(matches!(refuse_changed(&changed, "a", true), Err(ReleaseError::Changed)));
        }
    }
}
