//! How names resolve: like glibc's `getaddrinfo` with the same `/etc/hosts` and `/etc/resolv.conf`, but with answers
//! that outlive faults.
//!
//! [`hosts`] and [`resolv_conf`] read the files. [`candidates`] says which full names stand for a name, [`search`] in
//! which order they are queried and when the search ends, [`tries`] which server gets a query and for how long.
//! [`exchange`] writes a query and judges what a server sends, which [`wire`] reads; [`chain`] says which addresses of
//! an answer belong to the name. [`families`] keeps the addresses of a name, and says when to query again.

pub mod answer;
pub mod candidates;
pub mod chain;
pub mod exchange;
pub mod families;
pub mod hosts;
pub mod resolv_conf;
pub mod search;
pub mod tries;
pub mod wire;

/// The longest name, in bytes, without the trailing dot.
const LONGEST_NAME: usize = 253;
/// Longest label of a name, in bytes.
const LONGEST_LABEL: usize = 63;

/// Whether a text without a trailing dot can be queried as a name.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    text.bytes().all(is_plain) && fits(text)
}

/// Whether a text without a trailing dot has the lengths of a name, whatever its characters.
fn fits(text: &str) -> bool {
    text.len() <= LONGEST_NAME && text.split('.').all(|label| (1..=LONGEST_LABEL).contains(&label.len()))
}
