//! `PORT:HOST:PORT`: a forward without a manifest.

use std::{ffi::OsString, path::PathBuf};

use crds::{Bind, Protocol};

use crate::{
    admission::why_no_host,
    manifest::{Document, FileChange, parse as parse_manifest},
    options::{is_url, no_url, port},
};

/// The form of a forward on the command line.
const FORM: &str = "[BIND:]PORT:HOST:PORT[/udp], as in 5432:db.example.com:5432";
/// The place of the manifests for such forwards. Its lines are the forwards, counted from 1.
const PLACE: &str = "<command line>";

/// An operand of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// File or folder, or - for standard input.
    Path(PathBuf),
    /// A forward.
    Forward(Forward),
}

/// A forward of one port to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    bind: Bind,
    port: u16,
    host: String,
    to: u16,
    protocol: Protocol,
}

/// Parses an operand: a forward if the word has the form of one, otherwise a path. The path of an existing file may
/// look like a forward with a mistake.
pub(crate) fn operand(word: OsString) -> Result<Operand, String> {
    let path = PathBuf::from(word);
    let Some(text) = path.to_str().filter(|text| is_meant(text)) else { return Ok(Operand::Path(path)) };
    match parse(text) {
        Ok(forward) => Ok(Operand::Forward(forward)),
        Err(_) if path.exists() => Ok(Operand::Path(path)),
        Err(_) if is_web_page(text) => Err(no_url(text)),
        Err(flaw) => Err(format!("no such file, and not a forward: {flaw}; write {FORM}")),
    }
}

/// Whether the author means a forward rather than a file.
fn is_meant(word: &str) -> bool {
    word.contains(':') || (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether the word is a URL with a path below the root, and so the URL of a manifest rather than of a host.
fn is_web_page(word: &str) -> bool {
    let below = word.splitn(4, '/').nth(3).unwrap_or_default();
    is_url(word) && !below.is_empty()
}

fn parse(text: &str) -> Result<Forward, String> {
    if let Some((before, _)) = text.split_once("://") {
        let scheme = before.rsplit(':').next().unwrap_or(before);
        return Err(format!("a host has no scheme: leave out '{scheme}://'"));
    }
    let (place, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((place, word)) if word.eq_ignore_ascii_case("tcp") => (place, Protocol::Tcp),
        Some((place, word)) if word.eq_ignore_ascii_case("udp") => (place, Protocol::Udp),
        Some((_, word)) => return Err(format!("'{word}' is not tcp or udp")),
    };
    let parts = parts(place);
    let (bound, [listen, name, to]) = match parts[..] {
        [listen, name, to] => (Bind::Loopback, [listen, name, to]),
        [address, listen, name, to] => (bind(address)?, [listen, name, to]),
        [_] | [_, _] => return Err("a port or the host is missing".to_owned()),
        _ => return Err("it has more than four parts; an IPv6 address is in brackets, as [::1]".to_owned()),
    };
    Ok(Forward { bind: bound, port: port(listen)?, host: host(name)?, to: port(to)?, protocol })
}

/// Splits a text at colons outside of brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut is_inside = false;
    let splits = |character: char| {
        match character {
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ => {}
        }
        character == ':' && !is_inside
    };
    text.split(splits).collect()
}

fn bind(address: &str) -> Result<Bind, String> {
    match address.to_ascii_lowercase().as_str() {
        "127.0.0.1" | "[::1]" | "localhost" => Ok(Bind::Loopback),
        "*" | "0.0.0.0" | "[::]" => Ok(Bind::All),
        _ => Err(format!(
            "'{address}' cannot be bound alone: write 127.0.0.1 for this machine only, or * for all its addresses"
        )),
    }
}

/// The host as in a manifest, without brackets. The API decides whether it is a name or an address.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').map_or(Some(text), |rest| rest.strip_suffix(']'));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    match bare {
        Some("") => Err("the host is missing".to_owned()),
        Some(bare) if bare.bytes().all(is_plain) => Ok(bare.to_owned()),
        _ => Err(format!("the host must be an IP address or a DNS name; {}", why_no_host(bare.unwrap_or(text)))),
    }
}

impl Forward {
    /// The port to listen on, with its protocol, as `5432/TCP`.
    pub(crate) fn socket(&self) -> String {
        format!("{}/{}", self.port, self.protocol.as_str())
    }

    /// The manifest for the forward. The name contains the port, which no two forwards share.
    pub(crate) fn manifest(&self) -> String {
        let Self { bind, port, host, to, protocol } = self;
        let bind = match bind {
            Bind::Loopback => "Loopback",
            Bind::All => "All",
        };
        let (group, version) = (crds::GROUP, crds::VERSION);
        let (protocol, name) = (protocol.as_str(), protocol.as_str().to_ascii_lowercase());
        format!(
            "apiVersion: {group}/{version}
kind: PortForward
metadata: {{name: {name}-{port}}}
spec:
  placement: {{sidecar: {{selector: {{}}}}}}
  listeners:
  - name: {name}
    protocol: {protocol}
    port: {port}
    bind: {bind}
    backends: [{{address: {{host: \"{host}\", port: {to}}}}}]
"
        )
    }
}

/// Returns the forwards as manifests of a file, if there are any.
pub(crate) fn as_file(forwards: &[&Forward]) -> Option<(String, FileChange)> {
    if forwards.is_empty() {
        return None;
    }
    let mut documents = Vec::new();
    for (at, forward) in forwards.iter().enumerate() {
        match parse_manifest(PLACE, &forward.manifest()) {
            Ok(parsed) => documents.extend(parsed.into_iter().map(|it| Document::at_line(it.value, at + 1))),
            Err(problem) => return Some((PLACE.to_owned(), FileChange::Unreadable(problem))),
        }
    }
    Some((PLACE.to_owned(), FileChange::Documents(documents)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(bind: Bind, port: u16, host: &str, to: u16, protocol: Protocol) -> Forward {
        Forward { bind, port, host: host.to_owned(), to, protocol }
    }

    #[test]
    fn forwards_are_read_as_ssh_and_kubectl_write_them() {
        use Bind::{All, Loopback};
        use Protocol::{Tcp, Udp};
        for (text, expected) in [
            ("5432:db.example.com:5432", forward(Loopback, 5432, "db.example.com", 5432, Tcp)),
            ("5432:db:5433/tcp", forward(Loopback, 5432, "db", 5433, Tcp)),
            ("53:192.0.2.1:53/udp", forward(Loopback, 53, "192.0.2.1", 53, Udp)),
            ("53:192.0.2.1:53/UDP", forward(Loopback, 53, "192.0.2.1", 53, Udp)),
            ("127.0.0.1:1:db:2", forward(Loopback, 1, "db", 2, Tcp)),
            ("LOCALHOST:1:db:2", forward(Loopback, 1, "db", 2, Tcp)),
            ("localhost:1:db:2", forward(Loopback, 1, "db", 2, Tcp)),
            ("[::1]:1:db:2", forward(Loopback, 1, "db", 2, Tcp)),
            ("*:1:db:2", forward(All, 1, "db", 2, Tcp)),
            ("0.0.0.0:1:db:2", forward(All, 1, "db", 2, Tcp)),
            ("[::]:1:[2001:db8::1]:2", forward(All, 1, "2001:db8::1", 2, Tcp)),
            ("1:[::1]:65535", forward(Loopback, 1, "::1", 65535, Tcp)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_neither_a_forward_nor_a_file_is_told_the_form() {
        for (text, words) in [
            ("5432", "a port or the host is missing"),
            ("db.example.com:5432", "a port or the host is missing"),
            ("5432:db.example.com", "a port or the host is missing"),
            ("5432::5432", "the host is missing"),
            ("5432:db:0", "'0' is not a port number"),
            ("5432:db:65536", "'65536' is not a port number"),
            ("x:db:1", "'x' is not a port number"),
            ("1:db:2/sctp", "'sctp' is not tcp or udp"),
            ("1:::1:2", "more than four parts"),
            ("192.0.2.7:1:db:2", "'192.0.2.7' cannot be bound alone"),
            ("1:[::1:2", "a port or the host is missing"),
            ("1:a\"b:2", "must be an IP address or a DNS name"),
            ("1:[fe80::1%eth0]:2", "fd00::/8"),
            ("5432:http://db:80", "a host has no scheme: leave out 'http://'"),
            ("http://db:80", "a host has no scheme: leave out 'http://'"),
            ("https://db:80/", "a host has no scheme: leave out 'https://'"),
        ] {
            let error = operand(text.into()).expect_err(text);
            assert!(error.contains(words) && error.ends_with(FORM), "{text}: {error}");
        }
        let error = operand("https://example.com/x.yaml".into()).expect_err("a URL");
        assert!(error.contains("curl -fsSL https://example.com/x.yaml | portlane validate -f -"), "{error}");
    }

    #[test]
    fn other_words_are_paths_and_so_are_files_that_exist() {
        for path in ["-", "a.yaml", "./5432", "dir/", "/dev/fd/63", ""] {
            assert_eq!(operand(path.into()), Ok(Operand::Path(path.into())), "{path}");
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("12:30.yaml");
        std::fs::write(&path, "").expect("write");
        assert_eq!(operand(path.clone().into()), Ok(Operand::Path(path)));
    }

    #[test]
    fn the_manifest_of_a_forward_is_admitted_as_it_is() {
        let forwards = [parse("1:db.example.com:2"), parse("*:53:[::1]:5353/udp")].map(|it| it.expect("a forward"));
        let (place, FileChange::Documents(documents)) = as_file(&[&forwards[0], &forwards[1]]).expect("forwards")
        else {
            panic!("the manifests parse")
        };
        assert_eq!(place, PLACE);
        let admission = crate::admission::Admission::new().expect("rules");
        for (at, document) in documents.iter().enumerate() {
            let admitted = admission.admit(&place, document, "default");
            let crate::admission::Admitted::Object(object) = admitted else { panic!("not admitted: {document:?}") };
            assert_eq!(object.place.line, at + 1);
            assert_eq!(object.identity(), ["PortForward default/tcp-1", "PortForward default/udp-53"][at]);
        }
        assert_eq!(documents[1].value["spec"]["listeners"][0]["bind"], "All");
        assert_eq!(documents[1].value["spec"]["listeners"][0]["backends"][0]["address"]["host"], "::1");
        assert!(as_file(&[]).is_none());
    }
}
