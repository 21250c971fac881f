//! The stores of one listener that take messages at the same time, each for the sources of its lane.

use std::iter::once;
use std::net::IpAddr;
use std::sync::Arc;

use durable_core::intake::Limits;
use durable_core::lanes::lane_of;

use crate::Store;

/// A handle to the stores of one listener, in the order of their lanes. There is at least one.
#[derive(Clone, Debug)]
pub struct Lanes {
    first: Store,
    others: Arc<[Store]>,
}

impl Lanes {
    /// A handle to these stores, in this order.
    pub fn new(first: Store, others: Vec<Store>) -> Self {
        Self { first, others: others.into() }
    }

    /// The number of lanes.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// The stores.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        once(&self.first).chain(self.others.iter())
    }

    /// Whether all stores take messages.
    pub(crate) fn takes(&self) -> bool {
        self.stores().all(Store::takes)
    }

    /// The bounds on messages, or lower ones if a server that keeps them has lowered its own.
    pub(crate) fn limits(&self, limits: Limits) -> Limits {
        self.stores().fold(limits, |limits, store| store.limits(limits))
    }

    /// The store of all sources, if there are no others.
    pub(crate) fn only(&self) -> Option<&Store> {
        self.others.is_empty().then_some(&self.first)
    }

    /// The lane of a source.
    pub(crate) fn of(&self, source: IpAddr) -> usize {
        lane_of(source, self.count())
    }
}

impl From<&Lanes> for Lanes {
    fn from(lanes: &Lanes) -> Self {
        lanes.clone()
    }
}

impl From<Store> for Lanes {
    fn from(store: Store) -> Self {
        Self::new(store, Vec::new())
    }
}

impl From<&Store> for Lanes {
    fn from(store: &Store) -> Self {
        store.clone().into()
    }
}
