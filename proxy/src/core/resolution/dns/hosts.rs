//! `/etc/hosts`, read as glibc reads it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The names of a hosts file, with their addresses of both families. A name in the file is never queried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads a hosts file. A line without an address is ignored, as in glibc.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            // Includes the vertical tab, as isspace(3) does.
            let mut words = line.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).filter(|it| !it.is_empty());
            let Some(ip) = words.next().and_then(address) else { continue };
            // Hosts are ASCII, so other names are never looked up.
            for name in words.filter_map(|word| std::str::from_utf8(word).ok()) {
                let known = names.entry(name.to_ascii_lowercase()).or_default();
                if !known.contains(&ip) {
                    known.push(ip);
                }
            }
        }
        Self(names)
    }

    /// The addresses of a name, from every line that has it. Case is ignored; a trailing dot is part of the text.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Option<&[IpAddr]> {
        self.0.get(&host.to_ascii_lowercase()).map(Vec::as_slice)
    }
}

/// An address without a zone, which `inet_pton` does not accept either.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?;
    let four = word.parse::<Ipv4Addr>().map(IpAddr::V4).ok();
    four.or_else(|| word.parse::<Ipv6Addr>().map(IpAddr::V6).ok())
}
