//! The archive: an OCI image layout in a tar file, which `ctr` and `kind` load, plus the `manifest.json` that older
//! versions of `docker load` need. See the OCI image layout specification 1.0.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use serde_json::{Map, Value, json};

use crate::{
    Archive, Image, Platform, USER,
    pack::{File, digest, tar},
};

/// Content of the file `oci-layout`.
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Failure to build an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A required program cannot be started.
    #[error("cannot run {program}")]
    Run {
        /// Name of the program.
        program: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The compiler reported errors.
    #[error("{package} does not build for {target}:\n{messages}")]
    Build {
        /// Name of the package.
        package: String,
        /// Target triple.
        target: &'static str,
        /// What the compiler printed.
        messages: String,
    },
    /// The target is not installed and cannot be added.
    #[error("the Rust target {0} is not installed; run `rustup target add {0}`")]
    Target(&'static str),
}

impl ImageError {
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn run(program: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Run { program, source }
    }
}

/// Writes the archive of an image.
pub(crate) fn write(image: Image, platform: Platform, program: &Path, to: &Path) -> Result<Archive, ImageError> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let binary = fs::read(program).map_err(ImageError::write(program))?;
    let (bytes, digest) = pack(image, platform, &binary).map_err(ImageError::write(to))?;
    // Renamed into place, so that a reader sees either the old archive or the new one.
    let fresh = to.with_extension(format!("{}-{}.new", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    fs::write(&fresh, &bytes).map_err(ImageError::write(&fresh))?;
    fs::rename(&fresh, to).map_err(ImageError::write(to))?;
    Ok(Archive { path: to.to_owned(), reference: image.reference(), digest, bytes: bytes.len() as u64 })
}

/// Returns the archive and the digest of its manifest.
fn pack(image: Image, platform: Platform, binary: &[u8]) -> io::Result<(Vec<u8>, String)> {
    let layer = layer(image, binary)?;
    let configuration = serde_json::to_vec(&configuration(image, platform, &digest(&layer)))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &configuration),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let reference = image.reference();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": platform.architecture(), "os": "linux"});
    entry["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rsplit(':').next(),
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }))?;
    let docker = serde_json::to_vec(&json!([{
        "Config": blob(&configuration),
        "RepoTags": [reference],
        "Layers": [blob(&layer)],
    }]))?;
    let files = [
        File::plain(blob(&configuration), &configuration),
        File::plain(blob(&layer), &layer),
        File::plain(blob(&manifest), &manifest),
        File::plain("index.json", &index),
        File::plain("manifest.json", &docker),
        File::plain("oci-layout", LAYOUT),
    ];
    Ok((tar(&files, 0)?, digest(&manifest)))
}

/// The only layer of an image: its program.
pub(crate) fn layer(image: Image, binary: &[u8]) -> io::Result<Vec<u8>> {
    tar(&[File::program(image.package(), binary)], 0)
}

pub(crate) fn configuration(image: Image, platform: Platform, layer: &str) -> Value {
    json!({
        "architecture": platform.architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint(),
            "User": USER,
            "Env": ["PATH=/"],
            "Labels": labels(image).into_iter().collect::<Map<_, _>>(),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    })
}

pub(crate) fn labels(image: Image) -> [(String, Value); 3] {
    [
        ("title", format!("portlane-{}", image.name())),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
    ]
    .map(|(name, value)| (format!("org.opencontainers.image.{name}"), Value::from(value)))
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

pub(crate) fn blob(content: &[u8]) -> String {
    format!("blobs/{}", digest(content).replace(':', "/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_bytes_and_another_one_another_digest() {
        let pack = |binary: &[u8]| pack(Image::Proxy, Platform::Amd64, binary).unwrap();
        assert_eq!(pack(b"program"), pack(b"program"));
        assert_ne!(pack(b"program").1, pack(b"Program").1);
    }

    #[test]
    fn every_blob_has_the_digest_that_is_its_name() {
        let (archive, manifest) = pack(Image::Echo, Platform::Arm64, b"program").unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if path.starts_with("blobs/") {
                assert_eq!(path, blob(&content));
            }
            names.push(path);
        }
        assert!(names.contains(&format!("blobs/{}", manifest.replace(':', "/"))), "{names:?}");
    }

    #[test]
    fn the_dockerfile_describes_the_same_images() {
        let file = include_str!("../Dockerfile");
        for image in Image::RELEASED {
            let stage =
                file.split("\nFROM ").find(|stage| stage.starts_with(&format!("scratch AS {}\n", image.name())));
            let stage = stage.unwrap_or_else(|| panic!("no stage {}", image.name()));
            let entrypoint = serde_json::to_string(&image.entrypoint()).unwrap();
            assert!(stage.contains(&format!("ENTRYPOINT {entrypoint}\n")), "{entrypoint} is not in {stage}");
            assert!(stage.contains(&format!("USER {USER}\n")), "{stage}");
            assert!(stage.contains("ENV PATH=/\n"), "{stage}");
            let package = image.package();
            let copied = format!("COPY --from=build /portlane/target/release/{package} /{package}\n");
            assert!(stage.contains(&copied) && stage.matches("COPY").count() == 1, "{stage}");
            for (name, value) in labels(image) {
                assert!(stage.contains(&format!("{name}={value}")), "{name} is not in {stage}");
            }
            assert!(file.contains(&format!("-p {}", image.package())), "{} is not built", image.package());
        }
    }
}
