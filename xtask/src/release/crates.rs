//! The reports of cargo about the crates in a program. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

/// Name and version of a crate.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A crate as its manifest describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crate {
    /// SPDX expression.
    pub(crate) licence: Option<String>,
    pub(crate) authors: Vec<String>,
    /// Whether the crate comes from crates.io, not from this repository.
    pub(crate) is_foreign: bool,
    /// SHA-256 of the package that crates.io serves.
    pub(crate) checksum: Option<String>,
    /// Folder of the sources on this machine.
    pub(crate) folder: PathBuf,
}

/// The crates that are linked into a program.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: Id,
    pub(crate) nodes: BTreeSet<Id>,
    /// Crates and their dependencies.
    pub(crate) edges: BTreeSet<(Id, Id)>,
}

impl Id {
    fn new(name: &str, version: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned() }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.name, self.version)
    }
}

impl Tree {
    /// Parses the output of `cargo tree --prefix depth`, in which each line is a depth, a name and a version. `None`:
    /// the output has another form.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let mut path: Vec<Id> = Vec::new();
        let (mut nodes, mut edges) = (BTreeSet::new(), BTreeSet::new());
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            let end = line.find(|char: char| !char.is_ascii_digit())?;
            let (depth, rest) = line.split_at(end);
            let depth: usize = depth.parse().ok()?;
            let mut words = rest.split_whitespace();
            let id = Id::new(words.next()?, words.next()?.strip_prefix('v')?);
            if depth > path.len() {
                return None;
            }
            path.truncate(depth);
            if let Some(parent) = path.last() {
                edges.insert((parent.clone(), id.clone()));
            }
            nodes.insert(id.clone());
            path.push(id);
        }
        // A second line of depth 0 would have replaced the first one: each call is for one program.
        Some(Self { root: path.into_iter().next()?, nodes, edges })
    }
}

/// Parses the output of `cargo metadata`, and the checksums of `Cargo.lock`. `None`: the output has another form.
pub(crate) fn parse(metadata: &str, lock: &str) -> Option<BTreeMap<Id, Crate>> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let checksums = checksums(lock);
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array()? {
        let id = Id::new(package["name"].as_str()?, package["version"].as_str()?);
        let authors = package["authors"].as_array().into_iter().flatten();
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        let found = Crate {
            licence: package["license"].as_str().map(expression),
            authors: authors.filter_map(|author| author.as_str().map(ToOwned::to_owned)).collect(),
            is_foreign: package["source"].is_string(),
            checksum: checksums.get(&id).cloned(),
            folder: manifest.parent()?.to_owned(),
        };
        crates.insert(id, found);
    }
    Some(crates)
}

/// Converts the expression of an old manifest, which separates alternatives by a slash.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// The checksums in `Cargo.lock`. Packages of the workspace have none.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let value = |package: &str, key: &str| {
        let prefix = format!("{key} = \"");
        package.lines().find_map(|line| Some(line.strip_prefix(&prefix)?.strip_suffix('"')?.to_owned()))
    };
    let packages = lock.split("[[package]]");
    packages
        .filter_map(|package| {
            let id = Id { name: value(package, "name")?, version: value(package, "version")? };
            Some((id, value(package, "checksum")?))
        })
        .collect()
}

/// What cargo reports about a program `app`, which links `left` and, through it and by itself, `right`.
#[cfg(test)]
pub(crate) fn sample() -> (Tree, BTreeMap<Id, Crate>) {
    let tree = "0app v0.1.0 (/home/me/app)\n1left v1.0.0\n2right_er v2.0.0\n1right_er v2.0.0 (*)\n";
    let metadata = r#"{"packages": [
        {"name": "app", "version": "0.1.0", "license": "Apache-2.0", "source": null, "authors": [],
         "manifest_path": "/home/me/app/Cargo.toml"},
        {"name": "left", "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "registry+x", "authors": ["A. Uthor"],
         "manifest_path": "/home/me/.cargo/left-1.0.0/Cargo.toml"},
        {"name": "right_er", "version": "2.0.0", "license": "MIT", "source": "registry+x", "authors": ["B", "C"],
         "manifest_path": "/home/me/.cargo/right_er-2.0.0/Cargo.toml"}]}"#;
    let lock = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\n\
                [[package]]\nname = \"left\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"aa\"\n";
    (Tree::parse(tree).unwrap(), parse(metadata, lock).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_each_dependency_once_and_every_way_to_it() {
        let (tree, _) = sample();
        assert_eq!(tree.root, Id::new("app", "0.1.0"));
        assert_eq!(
            tree.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["app 0.1.0", "left 1.0.0", "right_er 2.0.0"]
        );
        let edges: Vec<_> = tree.edges.iter().map(|(from, to)| format!("{} {}", from.name, to.name)).collect();
        assert_eq!(edges, ["app left", "app right_er", "left right_er"]);
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for output in ["", "error", "0app", "0app 0.1.0", "1app v0.1.0", "0app v0.1.0\n2left v1.0.0"] {
            assert!(Tree::parse(output).is_none(), "{output}");
        }
    }

    #[test]
    fn crates_have_their_licences_and_the_checksums_of_the_lockfile() {
        let (_, crates) = sample();
        let [app, left] = [("app", "0.1.0"), ("left", "1.0.0")].map(|(name, version)| &crates[&Id::new(name, version)]);
        assert_eq!(left.licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!((left.checksum.as_deref(), left.is_foreign), (Some("aa"), true));
        assert_eq!((app.checksum.as_deref(), app.is_foreign), (None, false));
    }

    #[test]
    fn the_lockfile_of_this_checkout_has_checksums() {
        let checksums = checksums(include_str!("../../../Cargo.lock"));
        assert!(checksums.keys().any(|id| id.name == "ring"));
        assert!(checksums.values().all(|checksum| checksum.len() == 64));
    }
}
