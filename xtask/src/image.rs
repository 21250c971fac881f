//! Builds the released images and prints their sizes; builds the images of the node tests.

use clap::ValueEnum;
use images::Image;

use crate::{background::Background, error::TaskError};

/// Platform of an image.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Platform {
    #[value(name = "linux/amd64")]
    Amd64,
    #[value(name = "linux/arm64")]
    Arm64,
}

/// Builds every released image, and prints path, reference, size and digest of each archive.
pub(crate) fn run(platform: Option<Platform>) -> Result<(), TaskError> {
    let platform = match platform {
        None => images::Platform::here(),
        Some(Platform::Amd64) => images::Platform::Amd64,
        Some(Platform::Arm64) => images::Platform::Arm64,
    };
    for image in Image::RELEASED {
        let archive = images::build(image, platform, images::Profile::Release)?;
        let tenths = archive.bytes.div_ceil(100_000);
        println!(
            "{}  {}  {}.{} MB  {}",
            archive.path.display(),
            archive.reference,
            tenths / 10,
            tenths % 10,
            archive.digest
        );
    }
    Ok(())
}

/// Builds the images of the node tests while the caller continues.
pub(crate) fn build_in_background() -> Result<Background, TaskError> {
    let platform = images::Platform::here();
    // Not in the background, because rustup prints what it does.
    images::install(platform.into())?;
    Ok(Background::start(move || {
        // The programs of all images are compiled at once.
        images::build(Image::Pause, platform, images::Profile::Test)?;
        Ok(())
    }))
}
