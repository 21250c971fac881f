//! The `ClientHello` that `trace` sends to a TLS listener: the proxy selects a listener by its server name, and the
//! backend answers it with a `ServerHello` or an alert (RFC 5246, sections 6.2.1 and 7.4.1.2).

use crds::{Listener, Protocol};

/// Common cipher suites of TLS 1.2: ECDHE with AES-GCM and `ChaCha20`, then RSA with AES-GCM. A server that supports
/// only TLS 1.3 answers with an alert, which is an answer too.
const SUITES: [u8; 14] = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8, 0x00, 0x9c];
/// The groups x25519, secp256r1 and secp384r1.
const GROUPS: [u8; 6] = [0x00, 0x1d, 0x00, 0x17, 0x00, 0x18];
/// The point format: uncompressed points.
const POINTS: [u8; 2] = [1, 0];
/// The signature algorithms ECDSA, RSA-PSS and RSA with SHA-256 and SHA-384.
const SIGNATURES: [u8; 12] = [0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x05, 0x03, 0x08, 0x05, 0x05, 0x01];
/// The label that stands for `*` in a name.
const LABEL: &str = "trace";

/// Returns the first bytes of a client of this listener: a `ClientHello` for one of its names to a TLS listener, and
/// nothing to others.
pub fn hello(listener: &Listener) -> Vec<u8> {
    let names = listener.tls.iter().flat_map(|tls| &tls.hostnames).map(|name| name.0.as_str());
    let exact = names.clone().find(|name| !name.starts_with('*'));
    match exact.or_else(|| names.clone().next()) {
        Some(name) if listener.protocol == Protocol::Tls => client_hello(&name.replacen('*', LABEL, 1)),
        _ => Vec::new(),
    }
}

fn client_hello(name: &str) -> Vec<u8> {
    let server_name = prefixed(&[&[0][..], &prefixed(name.as_bytes())].concat());
    let extensions = [
        extension(0, &server_name),
        extension(10, &prefixed(&GROUPS)),
        extension(11, &POINTS),
        extension(13, &prefixed(&SIGNATURES)),
    ];
    // No key is derived, so nothing has to be random. There is no session to resume, and no compression.
    let body = [&[3, 3][..], &[0x70; 32], &[0], &prefixed(&SUITES), &[1, 0], &prefixed(&extensions.concat())].concat();
    // The length of a message has three bytes.
    let message = [&[1, 0][..], &prefixed(&body)].concat();
    [&[22, 3, 1][..], &prefixed(&message)].concat()
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0, kind][..], &prefixed(content)].concat()
}

/// Prefixes bytes with their length. All are shorter than 64 KiB: a name has at most 253 bytes.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use proxy::core::sessions::client_hello::{Hello, read};

    use super::*;

    #[test]
    fn a_proxy_reads_one_of_the_names_of_the_listener() {
        for (protocol, hostnames, expected) in [
            ("TLS", "[a.example.com, b.example.com]", Some("a.example.com")),
            ("TLS", "['*.example.com', b.example.com]", Some("b.example.com")),
            ("TLS", "['*.example.com']", Some("trace.example.com")),
            ("TCP", "[a.example.com]", None),
        ] {
            let text = format!(
                "{{name: tls, protocol: {protocol}, port: 443, tls: {{hostnames: {hostnames}}}, backends: []}}"
            );
            let listener: Listener = serde_yaml::from_str(&text).expect("a listener");
            let bytes = hello(&listener);
            match expected {
                Some(name) => assert_eq!(read(&bytes), Hello::Name(name.to_owned()), "{text}"),
                None => assert!(bytes.is_empty(), "{text}"),
            }
        }
    }
}
