//! The full names that stand for a name, in the order of `res_search`.

use super::{
    is_name,
    resolv_conf::{Flag, ResolvConf},
};

/// A full name to query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The name, with its trailing dot.
    pub name: String,
    /// Whether it is the name itself, without a search domain.
    pub is_as_written: bool,
    /// Whether it comes from a search domain, including the root.
    pub is_in_search: bool,
}

/// The full names that stand for a host, in the order of the queries.
///
/// A host with a trailing dot is queried as written and no other way. A host with `ndots` dots or more is queried as
/// written first, any other host last. As in glibc, a search domain that makes the name too long ends the search
/// domains.
#[must_use]
pub fn candidates(host: &str, conf: &ResolvConf) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |name: String, is_as_written: bool, is_in_search: bool| {
        if is_name(&name) && found.iter().all(|other| other.name.trim_end_matches('.') != name) {
            found.push(Candidate { name: name + ".", is_as_written, is_in_search });
        }
    };
    if let Some(name) = host.strip_suffix('.') {
        add(name.to_owned(), true, false);
        return found;
    }
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    if dots >= conf.ndots {
        add(host.to_owned(), true, false);
    }
    for domain in &conf.search {
        if domain.is_empty() {
            add(host.to_owned(), true, true);
            continue;
        }
        let name = format!("{host}.{domain}");
        if !is_name(&name) {
            break;
        }
        add(name, false, true);
    }
    if dots > 0 || conf.search.is_empty() || !conf.has(Flag::NoTldQuery) {
        add(host.to_owned(), true, false);
    }
    found
}
