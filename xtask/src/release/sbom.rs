//! The SBOM of a program or of an image: SPDX 2.3 in JSON. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::crates::{Crate, Id, Tree};
use crate::error::ReleaseError;

const NONE: &str = "NOASSERTION";

/// The facts that every document of a release contains.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) version: String,
    /// Time of the commit, in RFC 3339.
    pub(crate) created: String,
    pub(crate) commit: String,
    /// Address of the repository.
    pub(crate) repository: String,
    /// Version of Rust.
    pub(crate) rust: String,
}

/// A program, and the image that contains it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// Name of the document.
    pub(crate) name: &'a str,
    /// SHA-256 of the program.
    pub(crate) program: &'a str,
    /// Digest of the image.
    pub(crate) image: Option<&'a str>,
    /// Whether musl is linked into the program.
    pub(crate) has_musl: bool,
}

/// The document about a program, or about an image if the subject names one.
pub(crate) fn document(
    release: &Release,
    subject: Subject<'_>,
    tree: &Tree,
    crates: &BTreeMap<Id, Crate>,
) -> Result<Value, ReleaseError> {
    let root = spdx_id(&tree.root);
    let mut packages = vec![program(release, subject, tree)];
    let mut relationships = Vec::new();
    let mut relate = |from: &str, kind: &str, to: &str| {
        relationships.push(json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to}));
    };
    if let Some(digest) = subject.image {
        packages.push(image(release, digest, &tree.root.name));
        relate("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE);
        relate(IMAGE, "CONTAINS", &root);
    } else {
        relate("SPDXRef-DOCUMENT", "DESCRIBES", &root);
    }
    for id in tree.nodes.iter().filter(|id| **id != tree.root) {
        let found = crates.get(id).ok_or_else(|| unknown(id))?;
        packages.push(dependency(release, id, found));
    }
    for (from, to) in &tree.edges {
        relate(&spdx_id(from), "DEPENDS_ON", &spdx_id(to));
    }
    for library in libraries(release, subject.has_musl) {
        relate(&root, "STATIC_LINK", library["SPDXID"].as_str().unwrap_or_default());
        packages.push(library);
    }
    let identity = subject.image.map_or(subject.program, |digest| digest.trim_start_matches("sha256:"));
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": format!("{}/spdx/{}-{identity}", release.repository, subject.name),
        "creationInfo": {
            "created": release.created,
            "creators": [format!("Tool: cargo-xtask-release-{}", release.version)],
        },
        "packages": packages,
        "relationships": relationships,
    }))
}

const IMAGE: &str = "SPDXRef-image";

fn program(release: &Release, subject: Subject<'_>, tree: &Tree) -> Value {
    json!({
        "SPDXID": spdx_id(&tree.root),
        "name": tree.root.name,
        "versionInfo": tree.root.version,
        "primaryPackagePurpose": "APPLICATION",
        "downloadLocation": sources(release),
        "filesAnalyzed": false,
        "checksums": [{"algorithm": "SHA256", "checksumValue": subject.program}],
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": NONE,
    })
}

fn image(release: &Release, digest: &str, name: &str) -> Value {
    json!({
        "SPDXID": IMAGE,
        "name": name,
        "versionInfo": release.version,
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest.trim_start_matches("sha256:")}],
        "licenseConcluded": NONE,
        "licenseDeclared": "Apache-2.0",
        "copyrightText": NONE,
        "externalRefs": [package_url(&format!("pkg:oci/{name}@{}", digest.replace(':', "%3A")))],
    })
}

fn dependency(release: &Release, id: &Id, found: &Crate) -> Value {
    let Id { name, version } = id;
    let location = if found.is_foreign {
        format!("https://static.crates.io/crates/{name}/{name}-{version}.crate")
    } else {
        sources(release)
    };
    let mut package = json!({
        "SPDXID": spdx_id(id),
        "name": name,
        "versionInfo": version,
        "primaryPackagePurpose": "LIBRARY",
        "downloadLocation": location,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": found.licence.as_deref().unwrap_or(NONE),
        "copyrightText": NONE,
    });
    if found.is_foreign {
        package["externalRefs"] = json!([package_url(&format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")))]);
    }
    if let Some(checksum) = &found.checksum {
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
    }
    package
}

/// The libraries that the compiler links into every program.
fn libraries(release: &Release, has_musl: bool) -> Vec<Value> {
    let library = |id: &str, name: &str, licence: &str, location: &str| {
        json!({
            "SPDXID": id,
            "name": name,
            "primaryPackagePurpose": "LIBRARY",
            "downloadLocation": location,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": licence,
            "copyrightText": NONE,
        })
    };
    let mut std = library("SPDXRef-rust-std", "rust-std", "MIT OR Apache-2.0", "https://github.com/rust-lang/rust");
    std["versionInfo"] = json!(release.rust);
    let musl = || library("SPDXRef-musl", "musl", "MIT", "https://musl.libc.org");
    [std].into_iter().chain(has_musl.then(musl)).collect()
}

fn package_url(locator: &str) -> Value {
    json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator})
}

/// The location of this repository's sources, in the form of SPDX.
fn sources(release: &Release) -> String {
    format!("git+{}@{}", release.repository, release.commit)
}

/// Returns an identifier for SPDX, which allows letters, digits, dots and hyphens.
fn spdx_id(id: &Id) -> String {
    let text = format!("{}-{}", id.name, id.version);
    let allowed = text.chars().map(|char| if char.is_ascii_alphanumeric() || char == '.' { char } else { '-' });
    format!("SPDXRef-crate-{}", allowed.collect::<String>())
}

fn unknown(id: &Id) -> ReleaseError {
    ReleaseError::UnknownCrate { krate: id.name.clone(), version: id.version.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::release::crates::sample;

    fn release() -> Release {
        Release {
            version: "0.1.0".to_owned(),
            created: "2026-11-27T05:47:47Z".to_owned(),
            commit: "abc".to_owned(),
            repository: "https://example.com/portlane".to_owned(),
            rust: "1.95.0".to_owned(),
        }
    }

    fn sbom(image: Option<&str>) -> Value {
        let (tree, crates) = sample();
        let subject = Subject { name: "app-0.1.0-linux-amd64", program: "aabb", image, has_musl: true };
        document(&release(), subject, &tree, &crates).unwrap()
    }

    fn strings<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
        list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap_or("-")).collect()
    }

    #[test]
    fn a_program_is_described_with_everything_that_is_linked_into_it() {
        let sbom = sbom(None);
        assert_eq!(strings(&sbom["packages"], "name"), ["app", "left", "right_er", "rust-std", "musl"]);
        assert_eq!(strings(&sbom["packages"], "versionInfo"), ["0.1.0", "1.0.0", "2.0.0", "1.95.0", "-"]);
        assert_eq!(sbom["packages"][0]["checksums"][0]["checksumValue"], "aabb");
        assert_eq!(sbom["packages"][1]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(sbom["packages"][1]["externalRefs"][0]["referenceLocator"], "pkg:cargo/left@1.0.0");
        assert_eq!(sbom["relationships"][0]["relatedSpdxElement"], "SPDXRef-crate-app-0.1.0");
    }

    #[test]
    fn an_image_contains_its_program() {
        let sbom = sbom(Some("sha256:ccdd"));
        let first: Vec<_> = sbom["relationships"].as_array().unwrap().iter().take(2).cloned().collect();
        let relation =
            |entry: &Value| ["spdxElementId", "relationshipType", "relatedSpdxElement"].map(|key| entry[key].clone());
        assert_eq!(relation(&first[0]), ["SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"]);
        assert_eq!(relation(&first[1]), ["SPDXRef-image", "CONTAINS", "SPDXRef-crate-app-0.1.0"]);
        assert!(sbom["documentNamespace"].as_str().unwrap().ends_with("-ccdd"));
    }

    #[test]
    fn relations_are_between_packages_of_the_document() {
        let sbom = sbom(Some("sha256:ccdd"));
        let mut known: BTreeSet<_> = strings(&sbom["packages"], "SPDXID").into_iter().collect();
        assert_eq!(known.len(), sbom["packages"].as_array().unwrap().len());
        known.insert("SPDXRef-DOCUMENT");
        for key in ["spdxElementId", "relatedSpdxElement"] {
            for id in strings(&sbom["relationships"], key) {
                assert!(known.contains(id), "{id}");
                assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)), "{id}");
            }
        }
    }

    #[test]
    fn no_document_names_a_folder_of_the_machine_that_built_it() {
        assert!(!sbom(None).to_string().contains("/home"));
    }

    #[test]
    fn a_crate_that_cargo_does_not_describe_is_an_error() {
        let (tree, mut crates) = sample();
        crates.retain(|id, _| id.name != "left");
        let subject = Subject { name: "x", program: "aa", image: None, has_musl: false };
        let result = document(&release(), subject, &tree, &crates);
        assert!(matches!(result, Err(ReleaseError::UnknownCrate { krate, .. }) if krate == "left"));
    }
}
