//! Selects the manifests of a folder: the files that kubectl reads, without those that only other tools read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Most manifests in one folder.
const MAX_FILES: usize = 10_000;
/// Most folders that `--recursive` visits under one folder.
const MAX_FOLDERS: usize = 1000;

/// The reason for skipping a readable file: it is empty, or has only comments, `null` or a list without items.
pub(crate) const NO_OBJECT: &str = "no object";

/// The content of a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) manifests: Vec<PathBuf>,
    pub(super) skipped: Skipped,
}

/// Files and folders that are not read, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped(BTreeMap<&'static str, BTreeSet<String>>);

impl Skipped {
    /// Most files of a reason that are named; further files are counted.
    const NAMED: usize = 3;

    /// Adds the skipped files of another folder.
    pub(crate) fn extend(&mut self, other: Self) {
        for (why, names) in other.0 {
            self.0.entry(why).or_default().extend(names);
        }
    }

    /// Skips one more file.
    pub(crate) fn add(&mut self, why: &'static str, name: String) {
        self.0.entry(why).or_default().insert(name);
    }

    /// One phrase for each reason.
    pub(crate) fn phrases(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(why, names)| {
            let mut words: Vec<&str> = names.iter().take(Self::NAMED).map(String::as_str).collect();
            let more = format!("{} more", names.len().saturating_sub(Self::NAMED));
            if names.len() > Self::NAMED {
                words.push(&more);
            }
            format!("{} ({why})", words.join(", "))
        })
    }
}

/// The manifests in a folder, and with `recursive` in its subfolders.
///
/// # Errors
/// The folder or a subfolder cannot be listed, or has too many files.
pub(super) fn list(folder: &Path, recursive: bool) -> io::Result<Listing> {
    let mut found = Listing::default();
    let mut folders = vec![folder.to_owned()];
    let mut visited = 0_usize;
    while let Some(folder) = folders.pop() {
        visited += 1;
        if visited > MAX_FOLDERS {
            return Err(io::Error::other(format!("more than {MAX_FOLDERS} subfolders; name the folders to read")));
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            match verdict(&name, kind(&entry)?, recursive) {
                Verdict::Read => found.manifests.push(path),
                Verdict::Enter => folders.push(path),
                Verdict::Skip(why) => found.skipped.add(why, path.display().to_string()),
                Verdict::Ignore => {}
            }
            if found.manifests.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} manifests in one folder")));
            }
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    LinkToFolder,
}

fn kind(entry: &fs::DirEntry) -> io::Result<Kind> {
    let kind = entry.file_type()?;
    // A dangling link counts as a file: it is read, reported, and watched.
    let leads_to_folder = || fs::metadata(entry.path()).is_ok_and(|target| target.is_dir());
    Ok(match kind {
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_symlink() && leads_to_folder() => Kind::LinkToFolder,
        _ => Kind::File,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Read,
    Enter,
    /// The file is not read, and is reported.
    Skip(&'static str),
    /// The file is not read, as is expected.
    Ignore,
}

/// Decides about a file or folder of this name. The rules are those of kubectl, but without the files that editors,
/// Helm and Kustomize keep beside manifests, at which kubectl fails.
fn verdict(name: &str, kind: Kind, recursive: bool) -> Verdict {
    let hidden = name.starts_with('.');
    let is_manifest = matches!(Path::new(name).extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
    match kind {
        // An example is the `..data` of a mounted ConfigMap, whose files are in the folder itself too.
        Kind::Folder | Kind::LinkToFolder if name.starts_with("..") => Verdict::Ignore,
        // kubectl enters hidden folders.
        Kind::Folder if hidden && recursive => Verdict::Skip("hidden folder"),
        Kind::Folder | Kind::LinkToFolder if hidden => Verdict::Ignore,
        Kind::Folder if recursive => Verdict::Enter,
        Kind::Folder => Verdict::Skip("subfolder: -R reads it"),
        Kind::LinkToFolder => Verdict::Skip("link to a folder"),
        Kind::File if !is_manifest && hidden => Verdict::Ignore,
        Kind::File if !is_manifest => Verdict::Skip("not .json, .yaml or .yml"),
        Kind::File if name.starts_with(".#") || name.starts_with("._") => Verdict::Skip("file of an editor"),
        Kind::File if is_of_helm_or_kustomize(name) => Verdict::Skip("file of Helm or Kustomize"),
        Kind::File => Verdict::Read,
    }
}

fn is_of_helm_or_kustomize(name: &str) -> bool {
    matches!(
        name,
        "Chart.yaml" | "values.yaml" | "values.yml" | "values.schema.json" | "kustomization.yaml" | "kustomization.yml"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_their_extension_alone() {
        for name in ["a.yaml", "b.yml", "c.json", ".hidden.yaml", "a.b.yaml", "my-values.yaml"] {
            assert_eq!(verdict(name, Kind::File, false), Verdict::Read, "{name}");
        }
    }

    #[test]
    fn skipped_files_are_reported_where_users_may_expect_them() {
        for (name, kind, is_reported) in [
            ("a.yaml~", Kind::File, true),
            ("#a.yaml#", Kind::File, true),
            (".a.yaml.swp", Kind::File, false),
            (".#a.yaml", Kind::File, true),
            ("._a.yaml", Kind::File, true),
            ("a.YAML", Kind::File, true),
            ("README.md", Kind::File, true),
            ("Chart.yaml", Kind::File, true),
            ("values.yaml", Kind::File, true),
            ("kustomization.yaml", Kind::File, true),
            ("sub", Kind::Folder, true),
            ("sub.yaml", Kind::LinkToFolder, true),
            (".git", Kind::Folder, false),
            ("..data", Kind::LinkToFolder, false),
            ("..2026_01_01", Kind::Folder, false),
        ] {
            let verdict = verdict(name, kind, false);
            assert!(!matches!(verdict, Verdict::Read | Verdict::Enter), "{name}: {verdict:?}");
            assert_eq!(matches!(verdict, Verdict::Skip(_)), is_reported, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn subfolders_are_read_on_request() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("sub/..data")).expect("folders");
        fs::create_dir(path(".git")).expect("folder");
        for name in ["a.yaml", "sub/b.yaml", "sub/..data/b.yaml", ".git/c.yaml"] {
            fs::write(path(name), "a: 1").expect("write");
        }
        std::os::unix::fs::symlink("sub", path("link")).expect("link");
        let listed = |recursive| {
            let Listing { mut manifests, skipped } = list(folder.path(), recursive).expect("listed");
            manifests.sort();
            (manifests, skipped.phrases().map(|phrase| phrase.contains("(hidden folder)")).collect::<Vec<_>>())
        };
        assert_eq!(listed(false), (vec![path("a.yaml")], vec![false, false]));
        let told = "what kubectl would read and this program does not is named";
        assert_eq!(listed(true), (vec![path("a.yaml"), path("sub/b.yaml")], vec![true, false]), "{told}");
    }

    #[test]
    fn many_files_of_one_reason_are_counted() {
        let mut skipped = Skipped::default();
        for name in ["a", "b", "c", "d", "e"] {
            skipped.add("why", name.to_owned());
        }
        assert_eq!(skipped.phrases().collect::<Vec<_>>(), ["a, b, c, 2 more (why)"]);
    }
}
