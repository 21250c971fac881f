//! What a node needs of the operating system, and the packages that bring it; and the programs of others that tests talk to.

use std::{
    env,
    fs::File,
    path::Path,
    process::{Command, ExitStatus},
};

/// File and Debian package; a name without `/` is looked up on the PATH.
const NEEDED: [(&str, &str); 24] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("timeout", "coreutils"),
    ("mount", "mount"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("vsftpd", "vsftpd"),
    ("sipp", "sip-tester"),
    ("dig", "bind9-dnsutils"),
    ("logger", "bsdutils"),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
];

/// Why a node cannot be had here.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Programs are missing, and there is no apt.
    #[error("{programs} missing; install them with the distribution's packages (Debian calls them {packages})")]
    NoApt {
        /// What is missing.
        programs: String,
        /// Where Debian has it.
        packages: String,
    },
    /// apt did not do it.
    #[error("`apt-get install {packages}` failed ({status}); its messages stand above")]
    Apt {
        /// What was asked for.
        packages: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Not root.
    #[error(
        "a node of its own needs root on Linux, for namespaces and containers; run it as root, or set PORTLANE_TEST_KUBECONFIG to a cluster of yours (docs/testing.md)"
    )]
    NotRoot,
}

/// What is missing here for a node: programs and the packages that bring them.
///
/// # Errors
/// This machine can never run one.
pub fn missing() -> Result<Vec<(&'static str, &'static str)>, PackageError> {
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return Err(PackageError::NotRoot);
    }
    Ok(NEEDED.into_iter().filter(|(file, _)| !is_there(file)).collect())
}

/// Installs what is missing, and nothing else: a containerd that is there stays as it is.
///
/// # Errors
/// No root, no apt, or apt failed.
pub fn install() -> Result<(), PackageError> {
    if missing()?.is_empty() {
        return Ok(());
    }
    // Two runs at once take turns: apt's own lists have a lock that nobody waits for.
    let turn = File::create(env::temp_dir().join("portlane-packages.lock")).and_then(|file| file.lock().map(|()| file));
    let lacking = missing()?;
    let mut packages: Vec<&str> = lacking.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let names = packages.join(" ");
    if !is_there("apt-get") {
        let programs = lacking.iter().map(|(file, _)| *file).collect::<Vec<_>>().join(", ");
        return Err(PackageError::NoApt { programs, packages: names });
    }
    eprintln!("packages: installing {names} ...");
    let apt = |arguments: &[&str]| {
        // Two runs at once wait for each other's lock.
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=600"]).args(arguments);
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()).status()
    };
    let wanted: Vec<&str> = ["install", "--no-install-recommends"].into_iter().chain(packages).collect();
    let mut done = apt(&wanted);
    if !done.as_ref().is_ok_and(ExitStatus::success) {
        // The usual reason on a fresh machine: no package lists yet.
        let _ = apt(&["update"]);
        done = apt(&wanted);
    }
    drop(turn);
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(PackageError::Apt { packages: names, status }),
        Err(_) => Err(PackageError::NoApt { programs: "apt-get".to_owned(), packages: names }),
    }
}

fn is_there(file: &str) -> bool {
    if file.contains('/') {
        return Path::new(file).exists();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(file).is_file()))
}
