//! The proxy as images contain it.

use std::path::PathBuf;

use images::{Checkout, Image, Platform, Profile};

/// Builds the static program with the function that builds images. `Err`: it does not build.
pub(crate) fn proxy() -> Result<PathBuf, String> {
    let package = Image::Proxy.package();
    eprintln!("building {package} as for the image");
    let built = Checkout::here().build(package, Platform::here().into(), Profile::Release);
    built.map_err(|error| harness::chain(&error))
}
