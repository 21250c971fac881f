//! A registry of images and charts beside a node, by the name, the user and the password that docs/install.md writes.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    thread,
};

use harness::{CommandOutput, Node, until};
use serde_json::json;
use tempfile::TempDir;

use crate::tasks::shell::Shell;

/// Name of the registry on the page.
const NAME: &str = "registry.example.com";
/// The user and the password of the page, as `htpasswd` writes them (bcrypt). Nobody else may pull or push.
const USERS: &str = "USER:$2b$04$abcdefghijklmnopqrstuuQLWznNg7K9oVKTozbgThVyO8vc7yOme\n";
/// Port of a registry that is named without one, in the network of the node.
const PORT: u16 = 443;

/// The registry of the CNCF (distribution), which ends when dropped.
pub(crate) struct Registry {
    server: Child,
    folder: TempDir,
}

impl Registry {
    /// Starts the registry on the host of the node, whose container runtime finds it and trusts its certificate.
    #[track_caller]
    pub(crate) fn beside(node: &Node) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key, users) = (path("cert.pem"), path("key.pem"), path("users"));
        certify(&certificate, &key);
        fs::write(&users, USERS).expect("write");
        let configuration = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": path("data")}},
            "auth": {"htpasswd": {"realm": NAME, "path": users}},
            "http": {"addr": format!("127.0.0.1:{PORT}"), "tls": {"certificate": certificate, "key": key}},
        });
        fs::write(path("registry.yml"), configuration.to_string()).expect("write");
        let log = File::create(path("log")).expect("log");
        let mut server = Command::new("nsenter");
        server.arg(format!("--net=/proc/{}/ns/net", node.init()));
        server.args(["docker-registry", "serve", &path("registry.yml")]);
        server.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let registry = Self { server: server.spawn().expect("nsenter"), folder };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        until("the registry listens", || node.connect(address).is_ok());
        // The folder /etc of a node is its own.
        let trusted = format!("/etc/containerd/certs.d/{NAME}");
        let lines = format!(
            "printf '\\n127.0.0.1 {NAME}\\n' >> /etc/hosts && mkdir -p {trusted} && cp {certificate} {trusted}/ca.crt"
        );
        CommandOutput::of(node.command("sh").args(["-c", &lines]), "").ok();
        registry
    }

    /// From now on the programs of this shell trust the certificate, as if it were among those of the machine.
    #[track_caller]
    pub(crate) fn introduce_to(&self, shell: &mut Shell) {
        let certificate = self.folder.path().join("cert.pem");
        let (printed, status) = shell.run(&format!("export SSL_CERT_FILE={}", certificate.display()));
        assert_eq!(status, 0, "{printed}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
            let end = log.len().saturating_sub(2000);
            eprintln!("the registry:\n{}", String::from_utf8_lossy(&log[end..]));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Writes a certificate for the name, signed by itself, and its key.
#[track_caller]
fn certify(certificate: &str, key: &str) {
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let (subject, names) = (format!("/CN={NAME}"), format!("subjectAltName=DNS:{NAME}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509"]).args(curve).args(["-subj", &subject, "-addext", &names]);
    CommandOutput::of(openssl.args(["-keyout", key, "-out", certificate]), "").ok();
}
