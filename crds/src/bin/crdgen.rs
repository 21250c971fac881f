//! Writes the CRDs beside this crate: `cargo run -p portlane-crds --bin crdgen`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for crd in crds::crds()? {
        fs::write(folder.join(crd.file), serde_yaml::to_string(&crd.document)?)?;
    }
    Ok(())
}
