//! Builds the programs of a plan, and packs them. The files contain nothing of this machine: neither a path nor the
//! time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use images::{Checkout, File, Image, Index, Origin, Platform, PlatformImage, Profile, Target};

use super::{
    charts,
    checksums::{Files, SUMS, missing, sums},
    crates::{Crate, Id, Tree},
    licences::NOTICES,
    linked,
    plan::{PROXY_IMAGE_BYTES, Plan},
    sbom::{self, Release, Subject},
};
use crate::error::{ReleaseError, TaskError};

/// Name of the file with the notices of Rust's standard library.
const RUST_NOTICES: &str = "RUST-COPYRIGHT.html";

/// A program for a target: its package and its platform.
type Key = (&'static str, Target);

/// A program that was built.
#[derive(Debug)]
struct Built {
    program: Vec<u8>,
    tree: Tree,
}

/// The inputs of the files.
#[derive(Debug)]
struct Parts<'a> {
    release: &'a Release,
    /// Time of every packed file, in seconds since 1970.
    time: u64,
    built: BTreeMap<Key, Built>,
    crates: BTreeMap<Id, Crate>,
    /// Texts that users must get with a program, by name.
    texts: Files,
}

/// Makes the files of a release.
pub(crate) fn make(checkout: &Checkout, plan: &Plan, release: &Release, time: u64) -> Result<Files, TaskError> {
    let built = build(checkout, plan)?;
    let crates = linked::crates(checkout)?;
    let trees: Vec<_> = built.values().map(|built| &built.tree).collect();
    let notices = linked::notices(&trees, &crates)?;
    let licence = checkout.root.join("LICENSE");
    let licence = fs::read(&licence).map_err(ReleaseError::file(&licence))?;
    let mut texts = Files::from([("LICENSE".to_owned(), licence), (NOTICES.to_owned(), notices.into_bytes())]);
    texts.extend(plan.rust_notices.clone().map(|notices| (RUST_NOTICES.to_owned(), notices)));
    let parts = Parts { release, time, built, crates, texts };

    let mut files = parts.texts.clone();
    parts.pack_programs(plan, &mut files)?;
    parts.pack_images(plan, &mut files)?;
    if let Some(helm) = &plan.helm {
        files.extend(charts::package(helm, &checkout.root, &checkout.target.join("release-charts"), time)?);
    }
    files.insert(format!("portlane-crds-{}.yaml", release.version), charts::crds(&checkout.root)?);
    if let Some(notes) = &plan.notes {
        files.insert("RELEASE-NOTES.md".to_owned(), format!("{notes}\n").into_bytes());
    }
    if !plan.gaps.is_empty() {
        files.insert("MISSING.txt".to_owned(), missing(&plan.gaps).into_bytes());
    }
    let sums = sums(&files);
    files.insert(SUMS.to_owned(), sums.into_bytes());
    Ok(files)
}

/// Builds every program that is packed, alone or in an image.
fn build(checkout: &Checkout, plan: &Plan) -> Result<BTreeMap<Key, Built>, TaskError> {
    let of_image = |(image, platforms): &(Image, Vec<Platform>)| {
        let package = image.package();
        platforms.iter().map(move |platform| (package, Target::from(*platform))).collect::<Vec<_>>()
    };
    let wanted: BTreeSet<Key> = plan.programs.iter().copied().chain(plan.images.iter().flat_map(of_image)).collect();
    let mut built = BTreeMap::new();
    for (place, key) in wanted.iter().enumerate() {
        let (package, target) = *key;
        eprintln!("release: building {package} for {} ({} of {})", target.name(), place + 1, wanted.len());
        let path = checkout.build(package, target, Profile::Release)?;
        let program = fs::read(&path).map_err(ReleaseError::file(&path))?;
        built.insert(*key, Built { program, tree: linked::tree(checkout, package, target)? });
    }
    Ok(built)
}

impl Parts<'_> {
    fn built(&self, package: &'static str, target: Target) -> Result<&Built, ReleaseError> {
        // Every program of the plan is in the map.
        let unknown = || ReleaseError::Output(format!("cargo build --package {package}"));
        self.built.get(&(package, target)).ok_or_else(unknown)
    }

    /// Packs the archives of programs, each with its texts, and their SBOMs.
    fn pack_programs(&self, plan: &Plan, files: &mut Files) -> Result<(), TaskError> {
        for &(package, target) in &plan.programs {
            let built = self.built(package, target)?;
            let name = format!("{package}-{}-{}", self.release.version, target.name());
            let mut packed: Vec<_> =
                self.texts.iter().map(|(text, content)| File::plain(format!("{name}/{text}"), content)).collect();
            packed.push(File::program(format!("{name}/{package}"), &built.program));
            let archive = images::tar(&packed, self.time).and_then(|tar| images::gzip(&tar));
            let archive = archive.map_err(|error| ReleaseError::Pack(name.clone(), error))?;
            self.describe(&name, built, target, None, files)?;
            files.insert(format!("{name}.tar.gz"), archive);
        }
        Ok(())
    }

    /// Packs the images, each as one index for all platforms, their SBOMs, and the list of their digests.
    fn pack_images(&self, plan: &Plan, files: &mut Files) -> Result<(), TaskError> {
        let origin = Origin {
            created: self.release.created.clone(),
            revision: self.release.commit.clone(),
            source: self.release.repository.clone(),
        };
        let mut list = String::new();
        for (image, platforms) in &plan.images {
            let name = format!("portlane-{}-{}", image.name(), self.release.version);
            let mut programs = Vec::new();
            for platform in platforms {
                programs.push((*platform, self.built(image.package(), (*platform).into())?.program.clone()));
            }
            let index = images::index(*image, &origin, &programs);
            let index = index.map_err(|error| ReleaseError::Pack(name.clone(), error))?;
            for one in &index.images {
                check_size(*image, one)?;
                let document = format!("{name}-image-linux-{}", one.platform.architecture());
                let target = Target::from(one.platform);
                let built = self.built(image.package(), target)?;
                self.describe(&document, built, target, Some(&one.digest), files)?;
            }
            list += &listed(&image.reference(), &index);
            files.insert(format!("{name}.oci.tar"), index.archive);
        }
        eprint!("{list}");
        files.insert("IMAGES.txt".to_owned(), list.into_bytes());
        Ok(())
    }

    /// Adds the SBOM of a program, or of the image with this digest.
    fn describe(
        &self,
        name: &str,
        built: &Built,
        target: Target,
        image: Option<&str>,
        files: &mut Files,
    ) -> Result<(), ReleaseError> {
        let program = images::sha256(&built.program);
        let subject = Subject { name, program: &program, image, has_musl: matches!(target, Target::Linux(_)) };
        let document = sbom::document(self.release, subject, &built.tree, &self.crates)?;
        files.insert(format!("{name}.spdx.json"), format!("{document:#}\n").into_bytes());
        Ok(())
    }
}

/// Checks the size of an image. Every node with a sidecar pulls the proxy before the first pod starts there.
fn check_size(image: Image, one: &PlatformImage) -> Result<(), ReleaseError> {
    if image != Image::Proxy || one.pulled <= PROXY_IMAGE_BYTES {
        return Ok(());
    }
    let platform = format!("linux/{}", one.platform.architecture());
    Err(ReleaseError::TooLarge { platform, bytes: one.pulled, limit: PROXY_IMAGE_BYTES })
}

/// Returns the lines about an image: its digest, and for each platform the digest, the size of a pull and the size on
/// the node.
fn listed(reference: &str, index: &Index) -> String {
    let mut lines = format!("{reference}@{}\n", index.digest);
    for one in &index.images {
        let architecture = one.platform.architecture();
        let mebibytes = |bytes: usize| {
            let tenths = (bytes * 10).div_ceil(1024 * 1024);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        };
        let (pulled, unpacked) = (mebibytes(one.pulled), mebibytes(one.unpacked));
        lines += &format!("  linux/{architecture}  {}  {pulled} to pull, {unpacked} on the node\n", one.digest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pulled: usize) -> PlatformImage {
        PlatformImage { platform: Platform::Amd64, digest: "sha256:aa".to_owned(), pulled, unpacked: 3 * 1024 * 1024 }
    }

    #[test]
    fn a_proxy_that_has_grown_too_large_is_not_released() {
        assert!(check_size(Image::Proxy, &image(PROXY_IMAGE_BYTES)).is_ok());
        let refused = check_size(Image::Proxy, &image(PROXY_IMAGE_BYTES + 1));
        assert!(matches!(refused, Err(ReleaseError::TooLarge { limit: 8_388_608, .. })));
        assert!(check_size(Image::Operator, &image(PROXY_IMAGE_BYTES + 1)).is_ok());
    }

    #[test]
    fn the_list_of_images_has_what_users_pin_and_what_nodes_pull() {
        let index = Index { archive: Vec::new(), digest: "sha256:bb".to_owned(), images: vec![image(1024 * 1024 + 1)] };
        assert_eq!(
            listed("localhost/portlane/proxy:0.1.0", &index),
            "localhost/portlane/proxy:0.1.0@sha256:bb\n  linux/amd64  sha256:aa  1.1 MiB to pull, 3.0 MiB on the node\n"
        );
    }

    #[test]
    fn an_archive_has_the_licences_beside_the_program() {
        let (tree, crates) = crate::release::crates::sample();
        let target = Target::Linux(Platform::Amd64);
        let release = Release {
            version: "0.1.0".to_owned(),
            created: "2026-11-27T05:47:47Z".to_owned(),
            commit: "abc".to_owned(),
            repository: "https://example.com".to_owned(),
            rust: "1.95.0".to_owned(),
        };
        let parts = Parts {
            release: &release,
            time: 1_700_000_000,
            built: BTreeMap::from([(("app", target), Built { program: b"program".to_vec(), tree })]),
            crates,
            texts: Files::from([("LICENSE".to_owned(), b"text".to_vec())]),
        };
        let plan = Plan {
            programs: vec![("app", target)],
            images: Vec::new(),
            helm: None,
            notes: None,
            rust_notices: None,
            gaps: Vec::new(),
        };
        let mut files = Files::new();
        parts.pack_programs(&plan, &mut files).unwrap();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["app-0.1.0-linux-amd64.spdx.json", "app-0.1.0-linux-amd64.tar.gz"]);
        let mut again = Files::new();
        parts.pack_programs(&plan, &mut again).unwrap();
        assert_eq!(files, again);
    }
}
