//! Installs without services: the tests start servers themselves, each on a port of its own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    process::Command,
};

/// Asked by packages of Debian before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101: the action is not allowed.
const DENIAL: &str = "#!/bin/sh\n# `cargo xtask setup` installs packages: no service starts meanwhile.\nexit 101\n";

/// While it lives, no installed package starts a service. At its end the services of new packages are disabled, so that
/// they do not start with the machine either.
#[derive(Debug)]
pub(super) struct Quiet {
    is_ours: bool,
    before: BTreeSet<String>,
}

impl Quiet {
    /// # Errors
    /// The policy cannot be written.
    pub(super) fn begin() -> io::Result<Self> {
        let is_ours = match File::options().write(true).create_new(true).mode(0o755).open(POLICY) {
            Ok(mut file) => file.write_all(DENIAL.as_bytes()).map(|()| true)?,
            // A policy of the machine stays; one that a killed process left is removed at the end.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::read_to_string(POLICY).is_ok_and(|text| text == DENIAL)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { is_ours, before: installed() })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(POLICY);
        }
        let after = installed();
        let fresh: Vec<&String> = after.difference(&self.before).collect();
        if fresh.is_empty() {
            return;
        }
        let files = lines(Command::new("dpkg-query").arg("--listfiles").args(fresh));
        for unit in files.iter().filter_map(|file| unit(file)) {
            // Units that never start by themselves are refused, and a machine may have no systemd.
            let _ = Command::new("systemctl").args(["--quiet", "disable", unit]).output();
        }
    }
}

/// Names of the installed packages.
fn installed() -> BTreeSet<String> {
    lines(Command::new("dpkg-query").args(["--show", "--showformat=${Package}\\n"])).into_iter().collect()
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().map(str::to_owned).collect()
}

/// The name of the systemd unit in this file, if it may start with the machine.
fn unit(file: &str) -> Option<&str> {
    let (folder, name) = file.rsplit_once('/')?;
    let starts = [".service", ".socket", ".timer"].iter().any(|kind| name.ends_with(kind));
    (folder.ends_with("/lib/systemd/system") && starts && !name.contains('@')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_start_with_the_machine_are_found_by_their_file() {
        assert_eq!(unit("/lib/systemd/system/xrdp.service"), Some("xrdp.service"));
        assert_eq!(unit("/usr/lib/systemd/system/rpcbind.socket"), Some("rpcbind.socket"));
        assert_eq!(unit("/lib/systemd/system/postgresql@.service"), None);
        assert_eq!(unit("/lib/systemd/system/ssh.service.d/more.service"), None);
        assert_eq!(unit("/usr/share/doc/xrdp/xrdp.service"), None);
    }
}
