//! The addresses in an answer: those of the queried name, or of the name that its aliases lead to.

use std::{net::IpAddr, time::Duration};

use super::answer::Answer;

/// The most aliases of an answer that are followed; it ends loops.
const MOST_ALIASES: usize = 16;

/// A record of an answer. `N` is a name that can be compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<N> {
    /// The name of the record.
    pub owner: N,
    /// Time to live, in seconds.
    pub ttl: u32,
    /// The data.
    pub data: Data<N>,
}

/// The data of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<N> {
    /// The owner is an alias of this name.
    Alias(N),
    /// The owner has this address of the queried family.
    Address(IpAddr),
    /// Data of another type.
    Other,
}

impl<N> Record<N> {
    /// The same record with names that can be copied.
    #[must_use]
    pub fn by_ref(&self) -> Record<&N> {
        let data = match &self.data {
            Data::Alias(target) => Data::Alias(target),
            Data::Address(ip) => Data::Address(*ip),
            Data::Other => Data::Other,
        };
        Record { owner: &self.owner, ttl: self.ttl, data }
    }
}

/// Finds the queried name's addresses among the records of a successful answer. The shortest TTL along the chain
/// counts; records of names outside the chain are ignored.
///
/// glibc reads the records once, from the first to the last. If that finds no address, aliases are followed in any
/// order.
#[must_use]
pub fn follow<N: Copy + PartialEq>(asked: N, records: &[Record<N>]) -> Answer {
    in_order(asked, records).unwrap_or_else(|| in_any_order(asked, records))
}

/// Like glibc: each alias, whatever its owner, sets the name for the records after it.
fn in_order<N: Copy + PartialEq>(asked: N, records: &[Record<N>]) -> Option<Answer> {
    let (mut name, mut shortest, mut ips) = (asked, u32::MAX, Vec::new());
    for record in records {
        match record.data {
            Data::Alias(target) => name = target,
            Data::Address(ip) if record.owner == name => ips.push(ip),
            Data::Address(_) | Data::Other => continue,
        }
        shortest = shortest.min(record.ttl);
    }
    (!ips.is_empty()).then(|| Answer::Addresses { ips, ttl: Duration::from_secs(shortest.into()) })
}

fn in_any_order<N: Copy + PartialEq>(asked: N, records: &[Record<N>]) -> Answer {
    let (mut name, mut shortest) = (asked, u32::MAX);
    for _ in 0..=MOST_ALIASES {
        let here = name;
        let own = || records.iter().filter(move |record| record.owner == here);
        let addresses = own().filter_map(|record| match record.data {
            Data::Address(ip) => Some((ip, record.ttl)),
            Data::Alias(_) | Data::Other => None,
        });
        let (ips, ttls): (Vec<IpAddr>, Vec<u32>) = addresses.unzip();
        if let Some(ttl) = ttls.into_iter().min() {
            return Answer::Addresses { ips, ttl: Duration::from_secs(shortest.min(ttl).into()) };
        }
        let alias = own().find_map(|record| match record.data {
            Data::Alias(target) => Some((target, record.ttl)),
            Data::Address(_) | Data::Other => None,
        });
        let Some((target, ttl)) = alias else { break };
        (name, shortest) = (target, shortest.min(ttl));
    }
    if records.is_empty() { Answer::NoData } else { Answer::OtherRecords }
}
