//! Backend entries, from which tests make targets.

use std::sync::Arc;

use proxy::core::backends::{address::Address, balance::Entry, endpoint::Endpoint};

pub(crate) fn address(text: &str) -> Address {
    Address::Socket(text.parse().expect("an address with a port"))
}

pub(crate) fn entry(id: &str, weight: u32, priority: u32, endpoints: &[&str]) -> Entry {
    Entry {
        id: id.into(),
        weight,
        priority,
        endpoints: endpoints.iter().map(|text| Arc::new(Endpoint::new(address(text)))).collect(),
        stats: Arc::default(),
    }
}
