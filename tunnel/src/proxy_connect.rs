//! Connects through an HTTP proxy of the network: `HTTPS_PROXY` and HTTP CONNECT.

use std::fmt;
use std::io;
use std::net::IpAddr;

use data_encoding::BASE64;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tunnel_core::join::Address;

/// The longest head of a proxy's answer, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// How much of an answer an error repeats.
const MAX_SAID: usize = 128;

/// Why a text is not the URL of a proxy. The text may hold a password, so no error repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyUrlError {
    /// The URL has another scheme.
    #[error("HTTPS_PROXY does not begin with http://: name a proxy that speaks HTTP CONNECT without TLS")]
    Scheme,
    /// The URL has no host, or a wrong port.
    #[error(
        "HTTPS_PROXY has no valid host and port: write http://USER:PASSWORD@HOST:PORT, user and password as needed"
    )]
    Host,
}

/// Why a proxy made no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A failure of the connection to the proxy.
    #[error("the connection to the proxy of HTTPS_PROXY failed")]
    Io(#[from] io::Error),
    /// The proxy asks for other credentials.
    #[error("the proxy of HTTPS_PROXY asks for credentials (407): set USER:PASSWORD@ in HTTPS_PROXY")]
    Credentials,
    /// The proxy refused.
    #[error("the proxy of HTTPS_PROXY did not connect to {address}: it said {said:?}")]
    Refused {
        /// The address to connect to.
        address: String,
        /// The first line of its answer, shortened.
        said: String,
    },
    /// The answer is not HTTP.
    #[error(
        "the header of the answer of the proxy of HTTPS_PROXY is longer than 8192 bytes: check that it is an HTTP proxy"
    )]
    Head,
}

/// An HTTP proxy of the network.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    address: Address,
    /// The value of the `Proxy-Authorization` header; a secret.
    authorization: Option<String>,
    /// The hosts that are reached without the proxy; see [`Proxy::is_bypassed`].
    except: String,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Parses a URL in the form of `HTTPS_PROXY`. The default scheme is `http://`, and the default port is 80.
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyUrlError::Scheme),
            None => url,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let with_port = format!("{host}:80");
        let address = host.parse::<Address>().or_else(|_| with_port.parse());
        let address = address.map_err(|_| ProxyUrlError::Host)?;
        Ok(Self { address, authorization: credentials.map(basic), except: String::new() })
    }

    /// Returns the same proxy, except for the hosts of `NO_PROXY`.
    #[must_use]
    pub fn except(self, no_proxy: &str) -> Self {
        Self { except: no_proxy.to_owned(), ..self }
    }

    /// Whether an address is reached without this proxy.
    pub fn leaves_out(&self, address: &Address) -> bool {
        Self::is_bypassed(&self.except, address.host())
    }

    /// The address of the proxy.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether `NO_PROXY` exempts this host from the proxy. It is `*`, or a list of hosts, of domains with all hosts in
    /// them, and of networks.
    pub fn is_bypassed(no_proxy: &str, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            let within = host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'));
            let network = entry.parse::<IpNet>().ok();
            let has_ip = ip.zip(network).is_some_and(|(ip, network)| network.contains(&ip));
            entry == "*" || has_ip || (!domain.is_empty() && within)
        })
    }

    /// Asks the proxy at the other end of `io` to connect to `address`. The caller bounds the time.
    pub async fn connect(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        address: &Address,
    ) -> Result<(), ConnectError> {
        let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let head = head(io).await?;
        match status(&head) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(ConnectError::Credentials),
            _ => {
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let said = String::from_utf8_lossy(line).chars().take(MAX_SAID).collect();
                Err(ConnectError::Refused { address: address.to_string(), said })
            }
        }
    }
}

/// The value of the header for `USER:PASSWORD`, both URL-encoded.
fn basic(credentials: &str) -> String {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    format!("Basic {}", BASE64.encode(&plain))
}

/// Reads up to the empty line, and nothing after it.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ConnectError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(ConnectError::Head);
        }
        head.push(io.read_u8().await?);
    }
    Ok(head)
}

/// The status of `HTTP/1.x STATUS ...`.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest.get(1) == Some(&b' '))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn address() -> Address {
        Address::new("edge.example.com", 7443).expect("an address")
    }

    /// The request to the proxy, and the result of its answer.
    async fn asked(url: &str, says: &str) -> (String, Result<(), ConnectError>) {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        let proxy = Proxy::parse(url).expect("a proxy");
        theirs.write_all(says.as_bytes()).await.expect("written");
        theirs.shutdown().await.expect("closed");
        let result = proxy.connect(&mut ours, &address()).await;
        drop(ours);
        let mut request = String::new();
        theirs.read_to_string(&mut request).await.expect("a request");
        (request, result)
    }

    #[test]
    fn a_url_names_the_proxy_and_its_port() {
        for (url, address) in [
            ("http://proxy.example.com:3128", "proxy.example.com:3128"),
            ("HTTP://u:p@proxy.example.com:3128/path", "proxy.example.com:3128"),
            ("proxy:8080", "proxy:8080"),
            ("http://10.0.0.1", "10.0.0.1:80"),
            ("http://[fd00::1]:3128/", "[fd00::1]:3128"),
            ("http://[fd00::1]", "[fd00::1]:80"),
        ] {
            assert_eq!(Proxy::parse(url).expect(url).address().to_string(), address);
        }
        for (url, error) in [
            ("https://proxy:443", ProxyUrlError::Scheme),
            ("socks5://proxy:1080", ProxyUrlError::Scheme),
            ("", ProxyUrlError::Host),
            ("http://", ProxyUrlError::Host),
            ("http://proxy:0", ProxyUrlError::Host),
            ("http://proxy:port", ProxyUrlError::Host),
        ] {
            assert_eq!(Proxy::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn no_debug_output_shows_the_password() {
        let proxy = Proxy::parse("http://user:secret@proxy:3128").expect("a proxy");
        let shown = format!("{proxy:?}");
        assert!(!shown.contains("secret") && !shown.contains("Basic"), "{shown}");
    }

    #[test]
    fn hosts_and_their_domains_go_without_the_proxy() {
        for entry in ["edge.example.com", ".example.com", "*.example.com", "example.com", "other, EXAMPLE.com ", "*"] {
            assert!(Proxy::is_bypassed(entry, "edge.Example.com"), "{entry}");
        }
        for entry in ["", ",", ".", "ple.com", "b.example.com", "edge.example.com.org"] {
            assert!(!Proxy::is_bypassed(entry, "edge.example.com"), "{entry}");
        }
        for (entry, is_bypassed) in [("10.1.2.3", true), ("a, 10.0.0.0/8", true), ("10.2.0.0/16", false)] {
            assert_eq!(Proxy::is_bypassed(entry, "10.1.2.3"), is_bypassed, "{entry}");
        }
    }

    #[test]
    fn a_proxy_leaves_out_the_hosts_of_no_proxy_and_no_other() {
        let proxy = Proxy::parse("http://proxy:3128").expect("a proxy");
        assert!(!proxy.leaves_out(&address()));
        assert!(proxy.clone().except("example.com").leaves_out(&address()));
        assert!(!proxy.except("example.org").leaves_out(&address()));
    }

    #[tokio::test]
    async fn a_proxy_is_asked_with_the_credentials_of_the_url() {
        let (request, result) = asked("http://us%3Aer:p%40ss@proxy:3128", "HTTP/1.1 200 OK\r\nVia: a\r\n\r\n").await;
        result.expect("connected");
        let expected = "CONNECT edge.example.com:7443 HTTP/1.1\r\nHost: edge.example.com:7443\r\n\
                        Proxy-Authorization: Basic dXM6ZXI6cEBzcw==\r\n\r\n";
        assert_eq!(request, expected);
        let (request, _) = asked("http://proxy:3128", "HTTP/1.0 200 ok\r\n\r\n").await;
        assert!(!request.contains("Authorization"));
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_connect_is_quoted() {
        let says = |says: String| async move { asked("http://proxy:3128", &says).await.1.expect_err("refused") };
        assert!(matches!(says("HTTP/1.1 407 Who\r\n\r\n".to_owned()).await, ConnectError::Credentials));
        let refused = says("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned()).await.to_string();
        assert!(refused.contains("edge.example.com:7443") && refused.contains("403 Forbidden"), "{refused}");
        assert!(matches!(says("SSH-2.0-x\r\n\r\n".to_owned()).await, ConnectError::Refused { .. }));
        assert!(matches!(says("HTTP/1.1 200 OK\r\n".to_owned()).await, ConnectError::Io(_)));
        let long = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(2000));
        assert!(matches!(says(long).await, ConnectError::Head));
    }
}
