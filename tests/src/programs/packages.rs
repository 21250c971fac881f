//! Distribution packages: what a test node needs of the operating system, and third-party servers and clients that
//! tests talk to.

use std::{
    env,
    fs::File,
    io,
    path::Path,
    process::{Command, ExitStatus},
};

use super::quiet::Quiet;

/// File and Debian package. A file without `/` is searched on the PATH.
const NEEDED: [(&str, &str); 68] = [
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
    ("git", "git"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("vsftpd", "vsftpd"),
    ("mariadbd", "mariadb-server"),
    ("mariadb", "mariadb-client"),
    ("mariadb-slap", "mariadb-client"),
    ("pg_ctlcluster", "postgresql"),
    ("psql", "postgresql-client"),
    ("sipp", "sip-tester"),
    ("dig", "bind9-dnsutils"),
    ("unbound", "unbound"),
    ("chronyd", "chrony"),
    ("snmpd", "snmpd"),
    ("snmpwalk", "snmp"),
    ("logger", "bsdutils"),
    ("rsyslogd", "rsyslog"),
    ("/usr/share/doc/rsyslog-relp", "rsyslog-relp"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("scp", "openssh-client"),
    ("rsync", "rsync"),
    ("in.tftpd", "tftpd-hpa"),
    ("ganesha.nfsd", "nfs-ganesha"),
    ("/usr/share/doc/nfs-ganesha-mem", "nfs-ganesha-mem"),
    ("nfs-cat", "libnfs-utils"),
    ("websocketd", "websocketd"),
    ("/usr/lib/python3/dist-packages/websockets", "python3-websockets"),
    ("gtlsserver", "ngtcp2-server"),
    ("gtlsclient", "ngtcp2-client"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("ping", "iputils-ping"),
    ("xrdp", "xrdp"),
    ("xfreerdp", "freerdp2-x11"),
    ("xvfb-run", "xvfb"),
    ("xauth", "xauth"),
    ("/usr/games/bzfs", "bzflag-server"),
    ("/usr/games/bzadmin", "bzflag-client"),
    ("/usr/games/teeworlds-server", "teeworlds-server"),
    ("/usr/games/teeworlds", "teeworlds"),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
    ("chromium", "chromium"),
    ("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", "fonts-dejavu-core"),
];

/// Why this machine cannot run a node.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Programs are missing, and so is apt.
    #[error("{programs} missing; install them with the distribution's packages (Debian calls them {packages})")]
    NoApt {
        /// Missing programs, separated by commas.
        programs: String,
        /// Debian packages that contain them, separated by spaces.
        packages: String,
    },
    /// apt failed.
    #[error("`apt-get install {packages}` failed ({status}); see its messages above")]
    Apt {
        /// Packages to install, separated by spaces.
        packages: String,
        /// Exit status of apt.
        status: ExitStatus,
    },
    /// Services cannot be kept from starting.
    #[error("cannot write /usr/sbin/policy-rc.d, which keeps the services of packages from starting")]
    Policy(#[source] io::Error),
    /// The process is not root on Linux.
    #[error(
        "a test node needs root on Linux, for namespaces and containers; run as root, or set PORTLANE_TEST_KUBECONFIG to an existing cluster (docs/testing.md)"
    )]
    NotRoot,
}

/// Files that a node needs and this machine lacks, each with its package.
///
/// # Errors
/// The process is not root on Linux: no package would help.
pub fn missing() -> Result<Vec<(&'static str, &'static str)>, PackageError> {
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return Err(PackageError::NotRoot);
    }
    Ok(NEEDED.into_iter().filter(|(file, _)| !is_installed(file)).collect())
}

/// Installs the packages of missing files only: an existing containerd is not upgraded.
///
/// # Errors
/// The process is not root, services cannot be kept from starting, or apt is missing or fails.
pub fn install() -> Result<(), PackageError> {
    if missing()?.is_empty() {
        return Ok(());
    }
    // Two processes take turns: apt does not wait for the lock of its package lists.
    let turn = File::create(env::temp_dir().join("portlane-packages.lock")).and_then(|file| file.lock().map(|()| file));
    let lacking = missing()?;
    let mut packages: Vec<&str> = lacking.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let names = packages.join(" ");
    if !is_installed("apt-get") {
        let programs = lacking.iter().map(|(file, _)| *file).collect::<Vec<_>>().join(", ");
        return Err(PackageError::NoApt { programs, packages: names });
    }
    let quiet = Quiet::begin().map_err(PackageError::Policy)?;
    eprintln!("packages: installing {names} ...");
    let apt = |arguments: &[&str]| {
        // Waits up to 600 s for another process that holds dpkg's lock.
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=600"]).args(arguments);
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()).status()
    };
    let wanted: Vec<&str> = ["install", "--no-install-recommends"].into_iter().chain(packages).collect();
    let mut done = apt(&wanted);
    if !done.as_ref().is_ok_and(ExitStatus::success) {
        // A fresh machine has no package lists yet.
        let _ = apt(&["update"]);
        done = apt(&wanted);
    }
    drop(quiet);
    drop(turn);
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(PackageError::Apt { packages: names, status }),
        Err(_) => Err(PackageError::NoApt { programs: "apt-get".to_owned(), packages: names }),
    }
}

/// Whether a file exists; a name without `/` is searched on the PATH.
pub(super) fn is_installed(file: &str) -> bool {
    if file.contains('/') {
        return Path::new(file).exists();
    }
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(file).is_file()))
}
