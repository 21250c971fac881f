//! The programs that are measured. Peers come from packages of Debian.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache, host,
    rows::{Kind, Row},
};

/// syslog-ng, and the libraries that few systems have.
const PACKAGES: [&str; 4] = ["syslog-ng-core", "libivykis0", "libnet1", "libpcre3"];
/// syslog-ng, below the folder under which it is installed or unpacked.
const SYSLOG_NG: &str = "usr/sbin/syslog-ng";
/// Its libraries, and a folder of modules for each version.
const LIBRARIES: &str = "usr/lib/syslog-ng";
/// rsyslog, by the search path.
pub(crate) const RSYSLOG: &str = "rsyslogd";
/// A configuration that needs the module for RELP.
const RELP: &str = "module(load=\"omrelp\")\naction(type=\"omrelp\" target=\"127.0.0.1\" port=\"1\")\n";

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The static program of a release.
    pub(crate) portlane: PathBuf,
    /// Its version in words, if it is installed.
    rsyslog: Option<String>,
    /// Whether rsyslog can send by RELP.
    has_relp: bool,
    syslog_ng: Option<SyslogNg>,
}

/// syslog-ng, installed or unpacked.
#[derive(Clone, Debug)]
pub(crate) struct SyslogNg {
    folder: PathBuf,
    /// The version of its configurations.
    pub(crate) version: String,
}

impl Programs {
    /// Looks for the peers. `syslog_ng`: the folder under which that one is.
    pub(crate) fn find(portlane: &Path, syslog_ng: Option<&Path>) -> Self {
        let rsyslog = first_words(Command::new(RSYSLOG).arg("-v"), 2);
        if rsyslog.is_none() {
            eprintln!("rsyslog is not measured: it is not installed (package rsyslog)");
        }
        let has_relp = rsyslog.is_some() && loads_relp();
        if rsyslog.is_some() && !has_relp {
            eprintln!("rsyslog is not measured with RELP: its module is not installed (package rsyslog-relp)");
        }
        let syslog_ng = syslog_ng.and_then(SyslogNg::below);
        Self { portlane: portlane.to_owned(), rsyslog, has_relp, syslog_ng }
    }

    /// Whether the program of this kind is there.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Portlane(_) => true,
            Kind::Rsyslog(_) => self.rsyslog.is_some(),
            Kind::SyslogNg => self.syslog_ng.is_some(),
        }
    }

    /// Whether it can send as this row needs.
    pub(crate) fn speaks(&self, row: Row, kind: Kind) -> bool {
        row != Row::Relp || self.has_relp || !matches!(kind, Kind::Rsyslog(_))
    }

    /// syslog-ng.
    ///
    /// # Panics
    /// It is not there.
    pub(crate) fn syslog_ng(&self) -> &SyslogNg {
        self.syslog_ng.as_ref().expect("a program that is there")
    }

    /// The versions, for the line above the table.
    pub(crate) fn facts(&self) -> String {
        let (version, size) = (env!("CARGO_PKG_VERSION"), host::size(&self.portlane));
        let absent = |name: &str| format!("{name} is not installed");
        let rsyslog = self.rsyslog.clone().unwrap_or_else(|| absent("rsyslog"));
        let syslog_ng = self.syslog_ng.as_ref().and_then(|it| first_words(it.command().arg("--version"), 3));
        let syslog_ng = syslog_ng.unwrap_or_else(|| absent("syslog-ng"));
        format!("portlane {version}, static, {size}; {rsyslog}; {syslog_ng}")
    }
}

impl SyslogNg {
    fn below(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder.join(LIBRARIES)).ok()?;
        let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let version = names.find(|name| name.starts_with(|first: char| first.is_ascii_digit()))?;
        Some(Self { folder: folder.to_owned(), version })
    }

    /// The program with its libraries and modules.
    pub(crate) fn command(&self) -> Command {
        let libraries = self.folder.join(LIBRARIES);
        let further = ["usr/lib", "lib"].map(|of| self.folder.join(of).join(format!("{ARCH}-linux-gnu")));
        let paths: Vec<String> = [&libraries].into_iter().chain(&further).map(|it| it.display().to_string()).collect();
        let mut command = Command::new(self.folder.join(SYSLOG_NG));
        command.env("LD_LIBRARY_PATH", paths.join(":"));
        command.arg("--module-path").arg(libraries.join(&self.version));
        command
    }
}

/// The folder under which syslog-ng is. Debian installs it or rsyslog, not both; where it is not installed, its packages
/// are unpacked.
pub(crate) fn syslog_ng() -> Result<PathBuf, String> {
    let root = PathBuf::from("/");
    if root.join(SYSLOG_NG).is_file() {
        return Ok(root);
    }
    let folder = cache::folder("syslog-ng")?;
    if folder.join(SYSLOG_NG).is_file() {
        return Ok(folder);
    }
    let packages = tempfile::tempdir().map_err(|error| format!("cannot create a folder: {error}"))?;
    cache::run(Command::new("apt-get").args(["download", "--quiet"]).args(PACKAGES).current_dir(packages.path()))?;
    let entries = fs::read_dir(packages.path()).map_err(|error| format!("cannot list the packages: {error}"))?;
    for entry in entries.flatten() {
        cache::run(Command::new("dpkg").arg("-x").arg(entry.path()).arg(&folder))?;
    }
    Ok(folder)
}

/// The first words of what a program prints. `None`: it cannot be run.
fn first_words(command: &mut Command, count: usize) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().take(count).collect::<Vec<_>>().join(" "))
}

/// Whether rsyslog finds its module for RELP.
fn loads_relp() -> bool {
    let Ok(folder) = tempfile::tempdir() else { return false };
    let file = folder.path().join("relp.conf");
    let checked = |()| Command::new(RSYSLOG).arg("-N1").arg("-f").arg(&file).output();
    fs::write(&file, RELP).and_then(checked).is_ok_and(|output| output.status.success())
}

/// The file system of the folder for logs, in words. A sync to memory would say nothing.
pub(crate) fn file_system(folder: &Path) -> Result<String, String> {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output();
    let output = output.map_err(|error| format!("cannot run stat (package coreutils): {error}"))?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match name.as_str() {
        "" => Err(format!("{} is no folder: give one with --folder", folder.display())),
        "tmpfs" | "ramfs" => Err(format!("{} is in memory: give a folder on a disk with --folder", folder.display())),
        _ => Ok(format!("{} on {name}", folder.display())),
    }
}
