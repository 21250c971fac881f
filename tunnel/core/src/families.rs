//! The order of the attempts at the addresses of a name, over both address families ("Happy Eyeballs", RFC 8305).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an attempt may go unanswered before the next one begins in parallel (RFC 8305, section 8).
pub const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of one name that are tried.
pub const MAX_ADDRESSES: usize = 8;

/// Returns the addresses to try, each once and at most [`MAX_ADDRESSES`]. Families alternate, beginning with the one
/// that the resolver named first, so that an unreachable family delays the other one by no more than [`HEAD_START`].
pub fn interleave(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    let found: Vec<SocketAddr> = found.into_iter().filter(|address| seen.insert(*address)).collect();
    let begins_with_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv6() == begins_with_v6);
    let (mut first, mut other) = (first.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    while first.len() + other.len() > 0 {
        turns.extend(first.next());
        turns.extend(other.next());
    }
    turns.truncate(MAX_ADDRESSES);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interleaved(found: &[&str]) -> Vec<String> {
        let address = |text: &&str| text.parse::<SocketAddr>().expect("an address");
        interleave(found.iter().map(address)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn families_alternate_from_the_one_that_comes_first() {
        let v6_first = ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"];
        assert_eq!(interleaved(&v6_first), ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"]);
        let v4_first = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"];
        assert_eq!(interleaved(&v4_first), ["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"]);
    }

    #[test]
    fn families_are_tried_to_the_last_address_of_each() {
        let equal = ["192.0.2.1:1", "[2001:db8::1]:1"];
        assert_eq!(interleaved(&equal), equal);
        let more_of_the_other = ["192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"];
        assert_eq!(interleaved(&more_of_the_other), more_of_the_other);
    }

    #[test]
    fn one_family_keeps_its_order_and_each_address_comes_once() {
        assert_eq!(interleaved(&["192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1"]), ["192.0.2.2:1", "192.0.2.1:1"]);
        assert!(interleaved(&[]).is_empty());
    }

    #[test]
    fn the_other_family_has_its_turn_among_the_few_that_are_tried() {
        let many = (1..=100).map(|last| format!("[2001:db8::{last}]:1"));
        let found: Vec<String> = many.chain(["192.0.2.1:1".to_owned()]).collect();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        let tried = interleaved(&found);
        assert_eq!((tried.len(), tried[1].as_str()), (MAX_ADDRESSES, "192.0.2.1:1"));
    }
}
