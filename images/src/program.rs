//! Builds the programs of images and releases.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{Here, Image, ImageError, Machine, Profile, Target, target, workspace};

/// Sources, and where cargo puts what it builds from them.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// Root of the workspace.
    pub root: PathBuf,
    /// Target folder of cargo.
    pub target: PathBuf,
}

impl Checkout {
    /// The checkout that this program was built from.
    pub fn here() -> Self {
        Self { root: workspace().to_owned(), target: target() }
    }

    /// Builds a package for a target and returns the path of the program.
    ///
    /// # Errors
    /// The program does not build, or the target is not installed and cannot be.
    pub fn build(&self, package: &str, target: Target, profile: Profile) -> Result<PathBuf, ImageError> {
        install(target)?;
        let triple = target.triple();
        let mut command = match profile {
            Profile::Release => cargo(),
            Profile::Test => outside_packages(tied(cargo_path())),
        };
        command.args(["build", "--locked", "--quiet", "--profile", profile.name()]);
        command.args(["--target", triple]);
        for package in packages(package, profile) {
            command.args(["--package", package]);
        }
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // This variable takes precedence over every other source of flags.
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(target));
        if profile == Profile::Release {
            // A variable of the developer may ask for incremental builds, whose programs differ.
            command.env("CARGO_INCREMENTAL", "0");
        }
        for (variable, value) in self.c_compiler(target) {
            if env::var_os(&variable).is_none() {
                command.env(variable, value);
            }
        }
        // Captured: tests that run meanwhile print to the same terminal.
        let output = command.output().map_err(ImageError::run("cargo"))?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            return Err(ImageError::Build { package: package.to_owned(), target: triple, messages });
        }
        Ok(self.target.join(triple).join(profile.name()).join(package))
    }

    /// C compiler and flags for the parts in C. They belong to ring, which needs no C library, so the compiler of this
    /// machine works for any libc; another architecture needs its cross compiler.
    fn c_compiler(&self, target: Target) -> Vec<(String, String)> {
        let triple = target.triple().replace('-', "_");
        let maps: Vec<String> =
            self.remapped().iter().map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display())).collect();
        let flags = (format!("CFLAGS_{triple}"), maps.join(" "));
        let compiler = target.c_compiler(&Here).map(|compiler| (format!("CC_{triple}"), compiler.to_owned()));
        [flags].into_iter().chain(compiler).collect()
    }

    /// Folders of this machine, and the names they have in programs, so that builds are reproducible.
    fn remapped(&self) -> Vec<(PathBuf, &'static str)> {
        let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let mut remapped = vec![(self.root.clone(), "/portlane"), (cargo, "/cargo")];
        // Generated sources have the same name wherever the target folder is. The last map that fits counts.
        if self.target != self.root.join("target") {
            remapped.push((self.target.clone(), "/portlane/target"));
        }
        remapped
    }

    /// Flags that keep paths of this machine out of the program, and that link for another architecture with the linker
    /// of Rust.
    fn flags(&self, target: Target) -> String {
        let mut flags: Vec<String> = self
            .remapped()
            .iter()
            .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
            .collect();
        if target.needs_rust_linker(&Here) {
            flags.push("-Clinker=rust-lld".to_owned());
        }
        flags.join("\u{1f}")
    }
}

/// The packages that one run of cargo builds. For tests all of them together: a selection of its own would have features of its
/// own, and compile dependencies again. A released program is built alone, with no more features than it needs.
fn packages(package: &str, profile: Profile) -> Vec<&str> {
    match profile {
        Profile::Release => vec![package],
        Profile::Test => Image::RELEASED.map(Image::package).to_vec(),
    }
}

/// A cargo as a shell would start it: without the variables about packages that `cargo run` and `cargo test` set,
/// because build scripts that depend on them would run again each time.
pub fn cargo() -> Command {
    outside_packages(Command::new(cargo_path()))
}

fn cargo_path() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The command without the variables about packages.
fn outside_packages(mut command: Command) -> Command {
    let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if set_by_cargo.iter().any(|prefix| text.starts_with(prefix)) || text == "OUT_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// A program that ends with the thread that starts it, where `setpriv` is installed: a run of tests that fails or is
/// killed leaves no build behind.
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    if !Here.has("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// Installs the target with rustup. Without rustup, the compiler itself reports a missing target.
///
/// # Errors
/// rustup cannot install the target.
pub fn install(target: Target) -> Result<(), ImageError> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let Ok(installed) = installed else { return Ok(()) };
    if String::from_utf8_lossy(&installed.stdout).lines().any(|line| line == target.triple()) {
        return Ok(());
    }
    eprintln!("images: installing the Rust target {}", target.triple());
    let mut add = Command::new("rustup");
    add.args(["target", "add", target.triple()]).stdin(Stdio::null());
    match add.status().map_err(ImageError::run("rustup"))? {
        status if status.success() => Ok(()),
        _ => Err(ImageError::Target(target.triple())),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, path::Path, thread};

    use super::*;

    /// The name of a path in programs, as the compiler finds it: by the last map that fits.
    fn name(checkout: &Checkout, path: &Path) -> Option<PathBuf> {
        let maps = checkout.remapped();
        maps.iter().rev().find_map(|(from, to)| Some(Path::new(to).join(path.strip_prefix(from).ok()?)))
    }

    #[test]
    fn a_program_has_the_same_paths_wherever_its_folders_are() {
        let names = |root: &str, target: &str| {
            let checkout = Checkout { root: root.into(), target: target.into() };
            let sources = name(&checkout, &checkout.root.join("proxy/src/main.rs"));
            let generated = name(&checkout, &checkout.target.join("release/build/out/x.rs"));
            [sources, generated]
        };
        let expected = ["/portlane/proxy/src/main.rs", "/portlane/target/release/build/out/x.rs"];
        let expected = expected.map(|path| Some(PathBuf::from(path)));
        assert_eq!(names("/home/me/portlane", "/home/me/portlane/target"), expected);
        assert_eq!(names("/home/me/portlane", "/var/cache/portlane"), expected);
        assert_eq!(names("/srv/x", "/srv/x/build"), expected);
    }

    #[test]
    fn a_tied_program_ends_with_the_thread_that_starts_it() {
        if !Here.has("setpriv") {
            return;
        }
        let starter = thread::spawn(|| {
            let mut command = tied("sh");
            command.args(["-c", "echo; exec sleep 60"]).stdout(Stdio::piped());
            let mut child = command.spawn().expect("a program");
            let output = child.stdout.as_mut().expect("a pipe");
            output.read_exact(&mut [0]).expect("the program runs");
            child
        });
        let mut child = starter.join().expect("the thread ends");
        assert!(!child.wait().expect("the program ends").success(), "the program ended by itself");
    }
}
