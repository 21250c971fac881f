//! Which addresses of an answer are those of the name that was asked for.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{net::IpAddr, time::Duration};

use proxy::core::resolution::dns::{
    answer::Answer,
    chain::{Data, Record, follow},
};

fn alias(owner: &'static str, ttl: u32, target: &'static str) -> Record<&'static str> {
    Record { owner, ttl, data: Data::Alias(target) }
}

fn address(owner: &'static str, ttl: u32, last: u8) -> Record<&'static str> {
    Record { owner, ttl, data: Data::Address(IpAddr::from([192, 0, 2, last])) }
}

fn found(lasts: &[u8], ttl: u64) -> Answer {
    let ips = lasts.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect();
    Answer::Addresses { ips, ttl: Duration::from_secs(ttl) }
}

#[test]
fn only_addresses_of_the_name_and_of_what_its_aliases_lead_to_count() {
    let foreign = address("other", 1, 66);
    assert_eq!(follow("a", &[foreign.clone(), address("a", 60, 1), address("a", 50, 2)]), found(&[1, 2], 50));
    let chain = [alias("a", 90, "b"), alias("b", 30, "c"), address("c", 60, 1), foreign.clone()];
    assert_eq!(follow("a", &chain), found(&[1], 30));
    // In any order.
    let [first, second, third, _] = chain;
    assert_eq!(follow("a", &[third, second, first]), found(&[1], 30));
    assert_eq!(follow("a", &[foreign]), Answer::OtherRecords);
}

#[test]
fn aliases_that_lead_to_nothing_or_around_have_no_addresses() {
    assert_eq!(follow("a", &[]), Answer::NoData);
    assert_eq!(follow("a", &[alias("a", 60, "b")]), Answer::OtherRecords);
    assert_eq!(follow("a", &[Record { owner: "a", ttl: 60, data: Data::Other }]), Answer::OtherRecords);
    assert_eq!(follow("a", &[alias("a", 60, "b"), alias("b", 60, "a")]), Answer::OtherRecords);
}
