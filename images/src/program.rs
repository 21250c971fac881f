//! Builds the static program of an image.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{Image, ImageError, Platform, Profile, target, workspace};

/// Builds a package for a platform and returns the path of the program.
pub(crate) fn build(package: &str, platform: Platform, profile: Profile) -> Result<PathBuf, ImageError> {
    install(platform)?;
    let triple = platform.target();
    let mut command = cargo();
    command.args(["build", "--locked", "--quiet", "--profile", profile.name()]);
    command.args(["--target", triple]);
    for package in packages(package, profile) {
        command.args(["--package", package]);
    }
    command.current_dir(workspace()).env("CARGO_TARGET_DIR", target());
    // This variable takes precedence over every other source of flags.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(platform));
    for (variable, value) in c_compiler(platform) {
        if env::var_os(&variable).is_none() {
            command.env(variable, value);
        }
    }
    let status = command.status().map_err(ImageError::run("cargo"))?;
    if !status.success() {
        return Err(ImageError::Build { package: package.to_owned(), target: triple });
    }
    Ok(target().join(triple).join(profile.name()).join(package))
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
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let set_by_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if set_by_cargo.iter().any(|prefix| text.starts_with(prefix)) || text == "OUT_DIR" {
            command.env_remove(name);
        }
    }
    command
}

/// C compiler and flags for the parts in C. They belong to ring, which needs no C library, so the compiler of this
/// machine works for any libc; another architecture needs its cross compiler.
fn c_compiler(platform: Platform) -> [(String, String); 2] {
    let target = platform.target().replace('-', "_");
    let compiler = match (platform == Platform::here(), platform) {
        (true, _) => "cc",
        (false, Platform::Arm64) => "aarch64-linux-gnu-gcc",
        (false, Platform::Amd64) => "x86_64-linux-gnu-gcc",
    };
    let maps: Vec<String> =
        remapped().iter().map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display())).collect();
    [(format!("CC_{target}"), compiler.to_owned()), (format!("CFLAGS_{target}"), maps.join(" "))]
}

/// Folders of this machine, and the names they have in programs, so that builds are reproducible.
fn remapped() -> [(PathBuf, &'static str); 2] {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    [(workspace().to_owned(), "/portlane"), (cargo, "/cargo")]
}

/// Flags that keep paths of this machine out of the program, and that link for another architecture with the linker of
/// Rust.
fn flags(platform: Platform) -> String {
    let mut flags: Vec<String> =
        remapped().iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())).collect();
    if platform != Platform::here() {
        flags.push("-Clinker=rust-lld".to_owned());
    }
    flags.join("\u{1f}")
}

/// Installs the target with rustup. Without rustup, the compiler itself reports a missing target.
fn install(platform: Platform) -> Result<(), ImageError> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let Ok(installed) = installed else { return Ok(()) };
    if String::from_utf8_lossy(&installed.stdout).lines().any(|line| line == platform.target()) {
        return Ok(());
    }
    eprintln!("images: installing the Rust target {}", platform.target());
    let mut add = Command::new("rustup");
    add.args(["target", "add", platform.target()]).stdin(Stdio::null());
    match add.status().map_err(ImageError::run("rustup"))? {
        status if status.success() => Ok(()),
        _ => Err(ImageError::Target(platform.target())),
    }
}
