//! The parts of a release, and those that this machine cannot make. Pure.

use std::path::PathBuf;

use images::{Image, Machine, Platform, Target};

/// Largest image of the proxy, in bytes that a node pulls: every pod with a sidecar waits for them once per node.
pub(crate) const PROXY_IMAGE_BYTES: usize = 8 * 1024 * 1024;

/// Platforms of the images.
const PLATFORMS: [Platform; 2] = [Platform::Amd64, Platform::Arm64];

/// A program that users download.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Name of the package, and of the program.
    pub(crate) package: &'static str,
    /// Whether a dependency has parts in C (ring).
    has_c: bool,
    /// Whether the program is for laptops, and so for macOS too.
    on_laptops: bool,
}

/// The programs that users download.
const PROGRAMS: [Program; 4] = [
    Program { package: "portlane", has_c: true, on_laptops: true },
    Program { package: "kubectl-portlane", has_c: true, on_laptops: true },
    Program { package: "portlane-proxy", has_c: true, on_laptops: false },
    Program { package: "portlane-operator", has_c: true, on_laptops: false },
];

/// The tools and files that a machine and a checkout have for a release. An error says in a sentence what is missing.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The program `helm`.
    pub(crate) helm: Result<PathBuf, String>,
    /// The section of the changelog about the version.
    pub(crate) notes: Result<String, String>,
    /// The notices of Rust's standard library.
    pub(crate) rust_notices: Result<Vec<u8>, String>,
    /// Whether the checkout is a commit without changes.
    pub(crate) is_committed: bool,
}

/// The parts of a release.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) programs: Vec<(&'static str, Target)>,
    pub(crate) images: Vec<(Image, Vec<Platform>)>,
    pub(crate) helm: Option<PathBuf>,
    pub(crate) notes: Option<String>,
    pub(crate) rust_notices: Option<Vec<u8>>,
    /// The missing parts.
    pub(crate) gaps: Vec<Gap>,
}

/// A part of a release that is missing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Gap {
    what: String,
    /// One sentence, with the remedy.
    why: String,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.what, self.why)
    }
}

/// Plans a release. `install` prepares the compiler for a target, or returns why it cannot.
pub(crate) fn plan(
    machine: &impl Machine,
    found: Found,
    mut install: impl FnMut(Target) -> Result<(), String>,
) -> Plan {
    let mut gaps = Vec::new();
    let installed = Target::RELEASED.map(|target| (target, obstacle_of_rust(target, machine, &mut install)));
    let obstacle = |target: Target, has_c: bool| {
        let of_rust = installed.iter().find_map(|(one, why)| if *one == target { why.clone() } else { None });
        target.obstacle(has_c, machine).or(of_rust)
    };
    let mut programs = Vec::new();
    for program in PROGRAMS {
        for target in Target::RELEASED {
            if matches!(target, Target::MacOs(_)) && !program.on_laptops {
                continue;
            }
            match obstacle(target, program.has_c) {
                None => programs.push((program.package, target)),
                Some(why) => gaps.push(Gap { what: format!("{} for {}", program.package, target.name()), why }),
            }
        }
    }
    let mut images = Vec::new();
    for image in Image::RELEASED {
        let mut platforms = Vec::new();
        for platform in PLATFORMS {
            match obstacle(platform.into(), true) {
                None => platforms.push(platform),
                Some(why) => {
                    let what = format!("image {} for linux/{}", image.name(), platform.architecture());
                    gaps.push(Gap { what, why });
                }
            }
        }
        if !platforms.is_empty() {
            images.push((image, platforms));
        }
    }
    let mut lack = |what: &str, why: String| gaps.push(Gap { what: what.to_owned(), why });
    let helm = found.helm.map_err(|why| lack("charts", why)).ok();
    let notes = found.notes.map_err(|why| lack("section of the changelog", why)).ok();
    let rust_notices = found.rust_notices.map_err(|why| lack("notices of Rust's standard library", why)).ok();
    if !found.is_committed {
        lack("commit", "the checkout has changes or files that no commit has; commit or remove them".to_owned());
    }
    Plan { programs, images, helm, notes, rust_notices, gaps }
}

/// Why the compiler cannot build for a target. A target that cannot be linked here is not installed.
fn obstacle_of_rust(
    target: Target,
    machine: &impl Machine,
    install: &mut impl FnMut(Target) -> Result<(), String>,
) -> Option<String> {
    if target.obstacle(false, machine).is_some() { None } else { install(target).err() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Linux machine with these programs and variables.
    struct Linux(&'static [&'static str]);

    impl Machine for Linux {
        fn is_macos(&self) -> bool {
            false
        }

        fn linux(&self) -> Option<Platform> {
            Some(Platform::Amd64)
        }

        fn has(&self, program: &str) -> bool {
            self.0.contains(&program)
        }

        fn is_set(&self, variable: &str) -> bool {
            self.0.contains(&variable)
        }
    }

    const EVERYTHING: Linux = Linux(&[
        "aarch64-linux-gnu-gcc",
        "CARGO_TARGET_X86_64_APPLE_DARWIN_LINKER",
        "CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER",
        "CC_x86_64_apple_darwin",
        "CC_aarch64_apple_darwin",
    ]);

    fn found() -> Found {
        Found {
            helm: Ok("/helm".into()),
            notes: Ok("- a".to_owned()),
            rust_notices: Ok(Vec::new()),
            is_committed: true,
        }
    }

    fn gaps(plan: &Plan) -> Vec<String> {
        plan.gaps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_complete_release_has_every_program_and_every_image_for_both_architectures() {
        let plan = plan(&EVERYTHING, found(), |_| Ok(()));
        assert_eq!(gaps(&plan), Vec::<String>::new());
        let programs: Vec<_> = plan.programs.iter().map(|(name, target)| format!("{name} {}", target.name())).collect();
        assert_eq!(
            programs,
            [
                "portlane linux-amd64",
                "portlane linux-arm64",
                "portlane macos-amd64",
                "portlane macos-arm64",
                "kubectl-portlane linux-amd64",
                "kubectl-portlane linux-arm64",
                "kubectl-portlane macos-amd64",
                "kubectl-portlane macos-arm64",
                "portlane-proxy linux-amd64",
                "portlane-proxy linux-arm64",
                "portlane-operator linux-amd64",
                "portlane-operator linux-arm64",
            ]
        );
        assert!(plan.images.len() == 4 && plan.images.iter().all(|(_, platforms)| *platforms == PLATFORMS));
    }

    #[test]
    fn without_a_cross_compiler_only_what_has_c_is_missing() {
        let macos = Linux(&[
            "CARGO_TARGET_X86_64_APPLE_DARWIN_LINKER",
            "CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER",
            "CC_x86_64_apple_darwin",
            "CC_aarch64_apple_darwin",
        ]);
        let plan = plan(&macos, found(), |_| Ok(()));
        let what: Vec<_> = plan.gaps.iter().map(|gap| gap.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "portlane for linux-arm64",
                "kubectl-portlane for linux-arm64",
                "portlane-proxy for linux-arm64",
                "portlane-operator for linux-arm64",
                "image proxy for linux/arm64",
                "image operator for linux/arm64",
                "image agent for linux/arm64",
                "image echo for linux/arm64",
            ]
        );
        assert!(plan.gaps.iter().all(|gap| gap.why.contains("gcc-aarch64-linux-gnu")));
        assert!(plan.images.iter().all(|(_, platforms)| *platforms == [Platform::Amd64]));
    }

    #[test]
    fn a_target_that_cannot_be_linked_is_not_installed() {
        let mut installed = Vec::new();
        let plan = plan(&Linux(&["aarch64-linux-gnu-gcc"]), found(), |target| {
            installed.push(target);
            Ok(())
        });
        assert_eq!(installed, [Target::Linux(Platform::Amd64), Target::Linux(Platform::Arm64)]);
        assert_eq!(plan.gaps.len(), 4, "{:?}", gaps(&plan));
        assert!(plan.gaps.iter().all(|gap| gap.why.contains("Apple")));
    }

    #[test]
    fn a_target_that_rustup_cannot_get_is_missing_everywhere() {
        let plan = plan(&EVERYTHING, found(), |target| match target {
            Target::Linux(Platform::Arm64) => Err("no network".to_owned()),
            _ => Ok(()),
        });
        assert_eq!(plan.gaps.len(), 8);
        assert!(plan.gaps.iter().all(|gap| gap.why == "no network" && gap.what.contains("arm64")));
    }

    #[test]
    fn what_the_checkout_lacks_is_named() {
        let found = Found {
            helm: Err("no helm".to_owned()),
            notes: Err("no section".to_owned()),
            rust_notices: Err("no file".to_owned()),
            is_committed: false,
        };
        let plan = plan(&EVERYTHING, found, |_| Ok(()));
        let names = gaps(&plan);
        assert_eq!(names[0], "charts: no helm");
        assert_eq!(names[1], "section of the changelog: no section");
        assert_eq!(names[2], "notices of Rust's standard library: no file");
        assert!(names[3].starts_with("commit: "));
        assert!(plan.helm.is_none() && plan.notes.is_none() && plan.rust_notices.is_none());
    }
}
