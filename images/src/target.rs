//! What programs are built for, and what a machine needs for that.

use std::{env, path::Path};

use crate::Platform;

/// Operating system and architecture of a program.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// A static program for Linux.
    Linux(Platform),
    /// A program for macOS.
    MacOs(Platform),
}

/// What a machine has.
pub trait Machine {
    /// Whether it runs macOS.
    fn is_macos(&self) -> bool;
    /// The platform whose programs it builds without a cross compiler, if it runs Linux.
    fn linux(&self) -> Option<Platform>;
    /// Whether a program is on the PATH.
    fn has(&self, program: &str) -> bool;
    /// Whether a variable is set.
    fn is_set(&self, variable: &str) -> bool;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Machine for Here {
    fn is_macos(&self) -> bool {
        cfg!(target_os = "macos")
    }

    fn linux(&self) -> Option<Platform> {
        cfg!(target_os = "linux").then(Platform::here)
    }

    fn has(&self, program: &str) -> bool {
        let paths = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&paths).any(|folder| is_program(&folder, program))
    }

    fn is_set(&self, variable: &str) -> bool {
        env::var_os(variable).is_some_and(|value| !value.is_empty())
    }
}

fn is_program(folder: &Path, program: &str) -> bool {
    folder.join(program).is_file()
}

impl Target {
    /// Targets of a release.
    pub const RELEASED: [Self; 4] = [
        Self::Linux(Platform::Amd64),
        Self::Linux(Platform::Arm64),
        Self::MacOs(Platform::Amd64),
        Self::MacOs(Platform::Arm64),
    ];

    /// Target triple of the compiler.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Linux(platform) => platform.target(),
            Self::MacOs(Platform::Amd64) => "x86_64-apple-darwin",
            Self::MacOs(Platform::Arm64) => "aarch64-apple-darwin",
        }
    }

    /// Name in files: operating system and architecture.
    pub fn name(self) -> String {
        match self {
            Self::Linux(platform) => format!("linux-{}", platform.architecture()),
            Self::MacOs(platform) => format!("macos-{}", platform.architecture()),
        }
    }

    /// Why a machine cannot build for the target, in one sentence with the remedy. `has_c` says whether the program has
    /// parts in C. Whether rustup can install the target shows only when it does.
    pub fn obstacle(self, has_c: bool, machine: &impl Machine) -> Option<String> {
        let triple = self.triple();
        match self {
            Self::MacOs(_) => {
                let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
                let compiler = has_c.then(|| format!("CC_{}", triple.replace('-', "_")));
                let needed = [linker].into_iter().chain(compiler);
                let missing: Vec<String> = needed.filter(|variable| !machine.is_set(variable)).collect();
                (!machine.is_macos() && !missing.is_empty()).then(|| {
                    let variables = missing.join(" and ");
                    format!("macOS needs Apple's SDK: run this on macOS, or set {variables} to programs that have one")
                })
            }
            Self::Linux(platform) => {
                let is_native = machine.linux() == Some(platform);
                let compiler = format!("CC_{}", triple.replace('-', "_"));
                let compilers = platform.cross_compilers();
                let found = is_native || machine.is_set(&compiler) || compilers.iter().any(|name| machine.has(name));
                (has_c && !found).then(|| {
                    let [program, _] = compilers;
                    let package = platform.cross_package();
                    format!("its parts in C need {program}: install {package} (Debian), or set {compiler}")
                })
            }
        }
    }

    /// C compiler that cargo is set to use. `None`: cargo finds it.
    pub(crate) fn c_compiler(self, machine: &impl Machine) -> Option<&'static str> {
        match self {
            Self::MacOs(_) => None,
            Self::Linux(platform) if machine.linux() == Some(platform) => Some("cc"),
            Self::Linux(platform) => {
                let [first, second] = platform.cross_compilers();
                Some(if !machine.has(first) && machine.has(second) { second } else { first })
            }
        }
    }

    /// Whether the linker that comes with Rust links the target, because the machine's own does not.
    pub(crate) fn needs_rust_linker(self, machine: &impl Machine) -> bool {
        matches!(self, Self::Linux(platform) if machine.linux() != Some(platform))
    }
}

impl From<Platform> for Target {
    fn from(platform: Platform) -> Self {
        Self::Linux(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a few programs and variables.
    struct Fake {
        linux: Option<Platform>,
        has: &'static [&'static str],
    }

    impl Machine for Fake {
        fn is_macos(&self) -> bool {
            self.linux.is_none()
        }

        fn linux(&self) -> Option<Platform> {
            self.linux
        }

        fn has(&self, program: &str) -> bool {
            self.has.contains(&program)
        }

        fn is_set(&self, variable: &str) -> bool {
            self.has.contains(&variable)
        }
    }

    const ARM: Target = Target::Linux(Platform::Arm64);

    #[test]
    fn another_architecture_needs_a_compiler_for_parts_in_c_only() {
        let machine = Fake { linux: Some(Platform::Amd64), has: &[] };
        assert_eq!(Target::Linux(Platform::Amd64).obstacle(true, &machine), None);
        assert_eq!(ARM.obstacle(false, &machine), None);
        let obstacle = ARM.obstacle(true, &machine);
        assert!(obstacle.is_some_and(|text| text.contains("gcc-aarch64-linux-gnu")));
        let enough: [&[&str]; 3] =
            [&["aarch64-linux-gnu-gcc"], &["aarch64-linux-musl-gcc"], &["CC_aarch64_unknown_linux_musl"]];
        for has in enough {
            assert_eq!(ARM.obstacle(true, &Fake { linux: Some(Platform::Amd64), has }), None, "{has:?}");
        }
    }

    #[test]
    fn macos_is_built_on_macos_or_with_programs_of_the_user() {
        let target = Target::MacOs(Platform::Arm64);
        let linux = |has| Fake { linux: Some(Platform::Amd64), has };
        assert!(target.obstacle(false, &linux(&[])).is_some());
        let linker = linux(&["CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER"]);
        assert_eq!(target.obstacle(false, &linker), None);
        let parts_in_c = target.obstacle(true, &linker);
        assert!(parts_in_c.is_some_and(|text| text.contains("set CC_aarch64_apple_darwin to")));
        let both = linux(&["CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER", "CC_aarch64_apple_darwin"]);
        assert_eq!(target.obstacle(true, &both), None);
        assert_eq!(target.obstacle(false, &Fake { linux: None, has: &[] }), None);
    }

    #[test]
    fn a_machine_links_its_own_platform_with_its_own_linker() {
        let machine = Fake { linux: Some(Platform::Amd64), has: &["aarch64-linux-musl-gcc"] };
        let native = Target::Linux(Platform::Amd64);
        assert_eq!((native.c_compiler(&machine), native.needs_rust_linker(&machine)), (Some("cc"), false));
        assert_eq!((ARM.c_compiler(&machine), ARM.needs_rust_linker(&machine)), (Some("aarch64-linux-musl-gcc"), true));
    }
}
