//! The programs that are measured. Peers come from the registries of their languages, and each version is built once.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    cache::{self, folder, run},
    kind::Kind,
};

/// Version of rathole's crate.
pub(crate) const RATHOLE: &str = "0.5.0";
/// Version of frp's Go module.
pub(crate) const FRP: &str = "v0.70.1";
/// Features of rathole: both ends, and TLS by the OpenSSL of the machine, which is its default.
const FEATURES: &str = "server,client,tls";
/// Path of frp's Go module.
const MODULE: &str = "github.com/fatedier/frp";
/// The programs of frp: server and agent.
pub(crate) const FRP_PROGRAMS: [&str; 2] = ["frps", "frpc"];

/// Where the programs are. A peer that cannot be built is absent.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The static program of a release.
    pub(crate) portlane: PathBuf,
    pub(crate) rathole: Option<PathBuf>,
    /// The folder of both programs of frp.
    pub(crate) frp: Option<PathBuf>,
}

impl Programs {
    /// Builds what is missing, which may need the network. `Err`: Portlane does not build.
    pub(crate) fn build() -> Result<Self, String> {
        let portlane = cache::portlane()?;
        Ok(Self { portlane, rathole: cache::told("rathole", rathole()), frp: cache::told("frp", frp()) })
    }

    /// Whether the programs of this kind are there.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Portlane | Kind::NoTunnel => true,
            Kind::Rathole(_) => self.rathole.is_some(),
            Kind::Frp(_) => self.frp.is_some(),
        }
    }
}

fn rathole() -> Result<PathBuf, String> {
    let folder = folder(&format!("rathole-{RATHOLE}"))?;
    let program = folder.join("bin/rathole");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("building rathole {RATHOLE}");
    let mut cargo = images::cargo();
    // Not with its lock file, which has a version of the crate `time` that compilers since 1.80 refuse.
    cargo.args(["install", "--quiet", "rathole", "--version", RATHOLE]);
    cargo.args(["--no-default-features", "--features", FEATURES, "--root"]).arg(&folder);
    // The settings of this workspace are not the peer's.
    run(cargo.current_dir(&folder).env_remove("CARGO_TARGET_DIR"))?;
    Ok(program)
}

fn frp() -> Result<PathBuf, String> {
    let folder = folder(&format!("frp-{FRP}"))?;
    if FRP_PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return Ok(folder);
    }
    let sources = sources(&folder)?;
    for program in FRP_PROGRAMS {
        eprintln!("building {program} {FRP}");
        let mut go = go();
        // In the module's own folder, whose go.mod replaces yamux. Without the pages, which its module does not have.
        go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", "noweb", "-ldflags", "-s -w"]);
        go.arg("-o").arg(folder.join(program)).arg(format!("./cmd/{program}"));
        run(go.current_dir(&sources))?;
    }
    Ok(folder)
}

/// The folder with the sources of frp.
fn sources(folder: &Path) -> Result<PathBuf, String> {
    let mut go = go();
    go.args(["mod", "download", "-json", &format!("{MODULE}@{FRP}")]);
    let output = go.current_dir(folder).output().map_err(|error| format!("cannot run go: {error}"))?;
    downloaded(&output.stdout).map_err(|why| format!("go cannot download {MODULE}@{FRP}: {why}"))
}

/// The folder that `go mod download -json` names, or its error.
fn downloaded(json: &[u8]) -> Result<PathBuf, String> {
    let answer: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    match (answer["Error"].as_str(), answer["Dir"].as_str()) {
        (None, Some(folder)) => Ok(folder.into()),
        (error, _) => Err(error.unwrap_or("it names no folder").to_owned()),
    }
}

/// `go`, without variables that make another program of the same sources.
fn go() -> Command {
    let mut command = Command::new("go");
    command.env("CGO_ENABLED", "0").env("GOWORK", "off");
    for name in ["GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT"] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_names_its_folder_or_its_error() {
        assert_eq!(downloaded(br#"{"Path":"m","Dir":"/m@v1"}"#), Ok(PathBuf::from("/m@v1")));
        assert_eq!(downloaded(br#"{"Path":"m","Error":"not found"}"#), Err("not found".to_owned()));
        assert!(downloaded(b"").is_err());
    }
}
