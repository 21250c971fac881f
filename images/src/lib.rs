//! Container images as OCI archives, without a container engine or a registry.
//!
//! An image is one static program `FROM scratch`, run as the user 65532. The same sources and the same toolchain give
//! the same bytes: no timestamp, no host name and no path gets in. The `Dockerfile` beside this crate describes the
//! same images for users of a container engine.

mod archive;
mod index;
mod pack;
mod program;
mod target;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub use archive::ImageError;
pub use index::{Index, Origin, PlatformImage, index};
pub use pack::{File, gzip, normalize, sha256, tar};
pub use program::{Checkout, cargo, install, tied};
pub use target::{Here, Machine, Target};

/// User and group of every image, by number: an image has no file with names for them.
pub const USER: &str = "65532:65532";

/// The images of this repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Image {
    /// The proxy.
    Proxy,
    /// The operator.
    Operator,
    /// The command line as an agent of tunnels.
    Agent,
    /// The server that the examples forward to.
    Echo,
    /// The echo program in its `pause` mode, which holds the namespaces of a Pod on a test node.
    Pause,
}

/// Platform of an image.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Platform {
    /// linux/amd64.
    Amd64,
    /// linux/arm64.
    Arm64,
}

/// An archive that was written.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Path of the archive.
    pub path: PathBuf,
    /// Name of the image after it is loaded: repository and tag.
    pub reference: String,
    /// Digest of the image's manifest, `sha256:` and hexadecimal digits.
    pub digest: String,
    /// Size of the archive in bytes.
    pub bytes: u64,
}

impl Image {
    /// Images that are released to users.
    pub const RELEASED: [Self; 4] = [Self::Proxy, Self::Operator, Self::Agent, Self::Echo];

    /// File name of the archive, without its extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Echo => "echo",
            Self::Pause => "pause",
        }
    }

    /// Repository and tag of the image.
    pub fn reference(self) -> String {
        match self {
            Self::Pause => "localhost/portlane/echo:pause".to_owned(),
            image => format!("localhost/portlane/{}:{}", image.name(), env!("CARGO_PKG_VERSION")),
        }
    }

    /// Name of the Cargo package, and of the program that it builds.
    pub fn package(self) -> &'static str {
        match self {
            Self::Proxy => "portlane-proxy",
            Self::Operator => "portlane-operator",
            Self::Agent => "portlane",
            Self::Echo | Self::Pause => "portlane-echo",
        }
    }

    /// Entrypoint of the image.
    pub fn entrypoint(self) -> Vec<String> {
        let program = format!("/{}", self.package());
        match self {
            Self::Pause => vec![program, "pause".to_owned()],
            Self::Agent => vec![program, "agent".to_owned()],
            Self::Proxy | Self::Operator | Self::Echo => vec![program],
        }
    }
}

impl Platform {
    /// The platform of this machine, which programs are built for by default.
    pub fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// Name of the architecture in OCI documents.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Target triple of the compiler.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Names of C compilers that build for the platform on another one: Debian's, and the one of musl-cross.
    pub(crate) fn cross_compilers(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["x86_64-linux-gnu-gcc", "x86_64-linux-musl-gcc"],
            Self::Arm64 => ["aarch64-linux-gnu-gcc", "aarch64-linux-musl-gcc"],
        }
    }

    /// Debian's package with the first of them.
    pub(crate) fn cross_package(self) -> &'static str {
        match self {
            Self::Amd64 => "gcc-x86-64-linux-gnu",
            Self::Arm64 => "gcc-aarch64-linux-gnu",
        }
    }
}

/// How the programs of images are compiled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// As users get them.
    Release,
    /// Optimised little and linked fast, for tests.
    Test,
}

impl Profile {
    /// Name of the Cargo profile, and of its folder.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Test => "test-image",
        }
    }
}

/// Builds the program of an image and writes `target/images/NAME.tar`, or `NAME-ARCHITECTURE.tar` if the platform is
/// not that of this machine. Images for tests are written to `target/images/test`.
///
/// # Errors
/// The program does not build, the target is not installed, or the archive cannot be written.
pub fn build(image: Image, platform: Platform, profile: Profile) -> Result<Archive, ImageError> {
    let program = Checkout::here().build(image.package(), platform.into(), profile)?;
    let suffix = if platform == Platform::here() { String::new() } else { format!("-{}", platform.architecture()) };
    let folder = target().join("images").join(if profile == Profile::Test { "test" } else { "" });
    fs::create_dir_all(&folder).map_err(ImageError::write(&folder))?;
    archive::write(image, platform, &program, &folder.join(format!("{}{suffix}.tar", image.name())))
}

/// Root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Target folder of Cargo.
pub fn target() -> PathBuf {
    // A relative path is relative to the root of the workspace, where cargo is started.
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
