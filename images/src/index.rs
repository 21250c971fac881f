//! One image for several platforms: an OCI index over one image for each platform, in an OCI image layout. Registries
//! store it as packed here, so the digest that a release prints is the digest that users pull.

use std::{collections::BTreeMap, io};

use serde_json::{Map, Value, json};

use crate::{
    Image, Platform,
    archive::{LAYOUT, blob, configuration, descriptor, labels, layer},
    pack::{File, digest, gzip, tar},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Where an image comes from, for its annotations.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Time of the sources, in RFC 3339.
    pub created: String,
    /// Commit of the sources.
    pub revision: String,
    /// Address of the repository.
    pub source: String,
}

/// An image for several platforms.
#[derive(Clone, Debug)]
pub struct Index {
    /// The layout, as a tar.
    pub archive: Vec<u8>,
    /// Digest of the index.
    pub digest: String,
    /// The images, in the order of the programs.
    pub images: Vec<PlatformImage>,
}

/// The image of an index for one platform.
#[derive(Clone, Debug)]
pub struct PlatformImage {
    /// Platform of the program.
    pub platform: Platform,
    /// Digest of the image's manifest.
    pub digest: String,
    /// Bytes that a node pulls: manifest, configuration and compressed layer.
    pub pulled: usize,
    /// Bytes of the layer on the node.
    pub unpacked: usize,
}

/// Packs the programs of an image, one for each platform.
pub fn index(image: Image, origin: &Origin, programs: &[(Platform, Vec<u8>)]) -> io::Result<Index> {
    let mut blobs = BTreeMap::new();
    let mut store = |content: Vec<u8>| blobs.insert(blob(&content), content);
    let annotations = annotations(image, origin);
    let (mut images, mut manifests) = (Vec::new(), Vec::new());
    for (platform, program) in programs {
        let unpacked = layer(image, program)?;
        let mut configuration = configuration(image, *platform, &digest(&unpacked));
        configuration["created"] = json!(origin.created);
        let configuration = serde_json::to_vec(&configuration)?;
        let packed = gzip(&unpacked)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIGURATION, &configuration),
            "layers": [descriptor(LAYER, &packed)],
            "annotations": annotations,
        }))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["platform"] = json!({"architecture": platform.architecture(), "os": "linux"});
        manifests.push(entry);
        images.push(PlatformImage {
            platform: *platform,
            digest: digest(&manifest),
            pulled: manifest.len() + configuration.len() + packed.len(),
            unpacked: unpacked.len(),
        });
        for content in [configuration, packed, manifest] {
            store(content);
        }
    }
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": annotations,
    }))?;
    let digest = digest(&index);
    let top = serde_json::to_vec(&top(image, &index))?;
    store(index);
    let mut files: Vec<_> = blobs.iter().map(|(path, content)| File::plain(path, content)).collect();
    files.push(File::plain("index.json", &top));
    files.push(File::plain("oci-layout", LAYOUT));
    Ok(Index { archive: tar(&files, 0)?, digest, images })
}

/// The index of the layout, which names the index of the image.
fn top(image: Image, index: &[u8]) -> Value {
    let reference = image.reference();
    let mut entry = descriptor(INDEX, index);
    entry["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rsplit(':').next(),
    });
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
}

fn annotations(image: Image, origin: &Origin) -> Map<String, Value> {
    let origin = [("created", &origin.created), ("revision", &origin.revision), ("source", &origin.source)]
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), Value::from(value.as_str())));
    labels(image).into_iter().chain(origin).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn sample() -> Index {
        let origin = Origin {
            created: "2026-11-27T05:47:47Z".to_owned(),
            revision: "abc".to_owned(),
            source: "https://example.com".to_owned(),
        };
        let programs = [(Platform::Amd64, b"amd".to_vec()), (Platform::Arm64, b"arm".to_vec())];
        index(Image::Proxy, &origin, &programs).unwrap()
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(path, content);
        }
        files
    }

    /// The document that a descriptor points at, if its size is right.
    fn follow(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let content = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(descriptor["size"], content.len());
        assert_eq!(crate::pack::digest(content), digest);
        content.clone()
    }

    fn json(content: &[u8]) -> Value {
        serde_json::from_slice(content).unwrap()
    }

    #[test]
    fn a_registry_finds_each_platform_from_the_top_down() {
        let (packed, mut seen) = (sample(), Vec::new());
        let files = files(&packed.archive);
        let top = json(&files["index.json"]);
        assert_eq!(top["manifests"][0]["digest"], packed.digest.as_str());
        assert_eq!(top["manifests"][0]["mediaType"], INDEX);
        let index = json(&follow(&files, &top["manifests"][0]));
        for (entry, image) in index["manifests"].as_array().unwrap().iter().zip(&packed.images) {
            assert_eq!(entry["digest"], image.digest.as_str());
            let manifest = json(&follow(&files, entry));
            let configuration = json(&follow(&files, &manifest["config"]));
            assert_eq!(configuration["architecture"], entry["platform"]["architecture"]);
            let layer = follow(&files, &manifest["layers"][0]);
            let mut unpacked = Vec::new();
            io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&layer[..]), &mut unpacked).unwrap();
            assert_eq!(configuration["rootfs"]["diff_ids"][0], crate::pack::digest(&unpacked).as_str());
            assert_eq!(image.unpacked, unpacked.len());
            seen.push(entry["platform"]["architecture"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen, ["amd64", "arm64"]);
    }

    #[test]
    fn the_same_programs_give_the_same_bytes() {
        assert_eq!(sample().archive, sample().archive);
    }

    #[test]
    fn an_image_names_its_commit() {
        let packed = sample();
        let files = files(&packed.archive);
        let index = json(&follow(&files, &json(&files["index.json"])["manifests"][0]));
        assert_eq!(index["annotations"]["org.opencontainers.image.revision"], "abc");
        assert_eq!(index["annotations"]["org.opencontainers.image.title"], "portlane-proxy");
    }
}
