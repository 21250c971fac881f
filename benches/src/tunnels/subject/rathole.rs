//! rathole: a connection for each stream, of which it keeps some ready, and one for each service.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{FURTHER, Place, local, plain};
use crate::kind::Carrier;

/// The secret of all services, and of the file with key and certificate.
const SECRET: &str = "bench";
/// Names of the certificate, and of the file with the key, too.
const FILES: [&str; 3] = ["certificate.pem", "identity.pfx", "key.pem"];

/// The services of an agent: a name, the port for clients, and the target.
fn services(place: &Place, at: u16) -> Vec<(String, u16, u16)> {
    let forwarded = place.ports.forwarded();
    if at == 0 {
        return forwarded.iter().map(|(name, from, to)| ((*name).to_owned(), *from, *to)).collect();
    }
    let [(_, _, echo), ..] = forwarded;
    vec![(format!("further{at}"), FURTHER + at, echo)]
}

/// The command of the server.
pub(super) fn server(place: &Place, carrier: Carrier) -> Command {
    let [_, identity, _] = FILES.map(|name| place.folder().join(name));
    let mut text = head("server", "bind_addr", place.ports.carrier);
    if carrier == Carrier::Tls {
        make_identity(place.folder());
        let _ = writeln!(
            text,
            "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \"{SECRET}\"",
            identity.display()
        );
    }
    for (name, from, _) in (0..=place.further).flat_map(|at| services(place, at)) {
        let _ = writeln!(text, "[server.services.{name}]\nbind_addr = \"{}\"", local(from));
    }
    command(place, "--server", &place.write("server.toml", &text))
}

/// The command of an agent, which verifies the server's certificate.
pub(super) fn agent(place: &Place, carrier: Carrier, at: u16) -> Command {
    let [certificate, ..] = FILES.map(|name| place.folder().join(name));
    let mut text = head("client", "remote_addr", place.ports.carrier);
    if carrier == Carrier::Tls {
        let _ = writeln!(
            text,
            "[client.transport]\ntype = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"localhost\"",
            certificate.display()
        );
    }
    for (name, _, to) in services(place, at) {
        let _ = writeln!(text, "[client.services.{name}]\nlocal_addr = \"{}\"", local(to));
    }
    command(place, "--client", &place.write(&format!("client{at}.toml"), &text))
}

fn head(side: &str, address: &str, carrier: u16) -> String {
    format!("[{side}]\n{address} = \"{}\"\ndefault_token = \"{SECRET}\"\n", local(carrier))
}

fn command(place: &Place, side: &str, file: &Path) -> Command {
    let program = place.programs.rathole.as_ref().expect("a program that was built");
    let mut command = plain(program);
    command.arg(side).arg(file).env("RUST_LOG", "off");
    command
}

/// Makes a key and a certificate as Portlane's are, with ECDSA on P-256, in the one format that rathole reads.
fn make_identity(folder: &Path) {
    let [certificate, identity, key]: [PathBuf; 3] = FILES.map(|name| folder.join(name));
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    request.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    request.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let mut pack = Command::new("openssl");
    pack.args(["pkcs12", "-export", "-passout", &format!("pass:{SECRET}")]);
    // The ciphers that every OpenSSL reads.
    pack.args(["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES"]);
    pack.arg("-inkey").arg(&key).arg("-in").arg(&certificate).arg("-out").arg(&identity);
    for mut command in [request, pack] {
        let output = command.output().expect("openssl is installed");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
}
