//! Machines outside the cluster that the pages mention: addresses on the host of the node, and servers there.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{
    Node, binary,
    programs::{self, KubernetesVersion},
};
use tempfile::TempDir;

/// The command of a server, which may keep files in a folder.
type Server = fn(&Path) -> Command;

/// Servers that end on drop.
pub(super) struct Outside {
    servers: Vec<Child>,
    _folder: TempDir,
}

impl Outside {
    /// A database that has moved, a name server and an FTP server: those that the page mentions.
    pub(super) fn of(page: &str, node: &Node) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut servers = Vec::new();
        let all: [(&str, Server); 4] = [
            ("198.51.100.10:5432", |_| database("198.51.100.10", "old: ")),
            ("198.51.100.11", |_| database("198.51.100.11", "new: ")),
            ("198.51.100.53", name_server),
            ("198.51.100.20", ftp_server),
        ];
        for (named, server) in all.into_iter().filter(|(named, _)| page.contains(named)) {
            let address = named.split(':').next().unwrap_or(named);
            let mut ip = node.command("ip");
            assert!(
                ip.args(["address", "replace", &format!("{address}/32"), "dev", "lo"]).status().expect("ip").success()
            );
            let command = server(folder.path());
            let mut there = Command::new("nsenter");
            there
                .arg(format!("--net=/proc/{}/ns/net", node.init()))
                .arg(command.get_program())
                .args(command.get_args());
            servers.push(there.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a server"));
        }
        Self { servers, _folder: folder }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn database(address: &str, name: &str) -> Command {
    let mut command = Command::new(binary("portlane-echo"));
    command.args(["serve", "--address", address, "--port", "5432", "--name", name]);
    command
}

/// A `CoreDNS` with one name.
fn name_server(folder: &Path) -> Command {
    let corefile = folder.join("Corefile");
    fs::write(&corefile, "example.com {\n bind 198.51.100.53\n hosts {\n  198.51.100.10 db.example.com\n }\n}\n")
        .expect("write");
    let program = programs::built(KubernetesVersion::Oldest, "coredns").unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new(program);
    command.arg("-conf").arg(corefile);
    command
}

/// An anonymous vsftpd, configured as the page says.
fn ftp_server(folder: &Path) -> Command {
    let (root, empty) = (folder.join("ftp"), folder.join("empty"));
    fs::create_dir_all(root.join("pub")).expect("folder");
    fs::create_dir(&empty).expect("folder");
    fs::write(root.join("pub/readme.txt"), "It came through the range of ports.\n").expect("write");
    let configuration = format!(
        "listen=YES\nlisten_address=198.51.100.20\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\n\
         anon_root={}\nsecure_chroot_dir={}\nseccomp_sandbox=NO\npasv_min_port=30000\npasv_max_port=30019\n",
        root.display(),
        empty.display()
    );
    // vsftpd serves its clients as another user than this test's.
    for folder in [folder, &root, &empty] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder, open).expect("permissions");
    }
    let file = folder.join("vsftpd.conf");
    fs::write(&file, configuration).expect("write");
    let mut command = Command::new("vsftpd");
    command.arg(file);
    command
}
