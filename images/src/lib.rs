//! Container images as OCI archives, without a container engine or a registry.
//!
//! An image is one static program on nothing (`FROM scratch`), run by nobody (65532). The same sources and the same
//! toolchain give the same bytes: no time, no name of the machine, and no path gets in. `Dockerfile` beside this crate
//! says the same for those who have an engine.

mod archive;
mod program;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub use archive::ImageError;
pub use program::cargo;

/// User and group of every image, by number: nothing in the image has a name for them.
pub const USER: &str = "65532:65532";

/// The images there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image {
    /// The proxy.
    Proxy,
    /// The operator.
    Operator,
    /// What the examples forward to.
    Echo,
    /// The same program, doing nothing: what a test node holds the namespaces of its Pods with.
    Pause,
}

/// What it runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Platform {
    /// linux/amd64.
    Amd64,
    /// linux/arm64.
    Arm64,
}

/// An archive that was written.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called once loaded.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl Image {
    /// The ones that users get.
    pub const RELEASED: [Self; 3] = [Self::Proxy, Self::Operator, Self::Echo];

    /// Name of its archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Operator => "operator",
            Self::Echo => "echo",
            Self::Pause => "pause",
        }
    }

    /// Repository and tag.
    pub fn reference(self) -> String {
        match self {
            Self::Pause => "localhost/portlane/echo:pause".to_owned(),
            image => format!("localhost/portlane/{}:{}", image.name(), env!("CARGO_PKG_VERSION")),
        }
    }

    /// The package, and the program that it builds.
    pub fn package(self) -> &'static str {
        match self {
            Self::Proxy => "portlane-proxy",
            Self::Operator => "portlane-operator",
            Self::Echo | Self::Pause => "portlane-echo",
        }
    }

    /// What it starts with.
    pub fn entrypoint(self) -> Vec<String> {
        let program = format!("/{}", self.package());
        match self {
            Self::Pause => vec![program, "pause".to_owned()],
            Self::Proxy | Self::Operator | Self::Echo => vec![program],
        }
    }
}

impl Platform {
    /// The platform that programs built here without a target would have.
    pub fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name that OCI has for it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target of the compiler.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

/// Builds the program of an image and writes `target/images/NAME.tar` (`NAME-ARCHITECTURE.tar` for another machine).
///
/// # Errors
/// The program does not build, the target is not installed, or the archive cannot be written.
pub fn build(image: Image, platform: Platform) -> Result<Archive, ImageError> {
    let program = program::build(image.package(), platform)?;
    let suffix = if platform == Platform::here() { String::new() } else { format!("-{}", platform.architecture()) };
    let folder = target().join("images");
    fs::create_dir_all(&folder).map_err(ImageError::write(&folder))?;
    archive::write(image, platform, &program, &folder.join(format!("{}{suffix}.tar", image.name())))
}

/// The checkout.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    // A relative one is meant from where cargo was started, which is the checkout.
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
