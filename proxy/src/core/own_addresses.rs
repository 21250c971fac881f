//! Which addresses belong to this host. A question costs system calls, so answers are cached. A few answers are renewed
//! each second, because an interface may get another address.

use std::{collections::BTreeMap, net::IpAddr, ops::Bound};

/// Most addresses in the cache. If there are more, the cache is cleared, and fills again on demand.
const MOST: usize = 16_384;
/// Addresses that one [`OwnAddresses::renew`] asks about.
const AT_ONCE: usize = 64;

/// Addresses with whether they belong to this host.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: BTreeMap<IpAddr, bool>,
    /// The address that was renewed last.
    renewed: Option<IpAddr>,
}

impl OwnAddresses {
    /// Whether an address belongs to this host. `ask` is called for an address that is not known.
    pub fn is_own(&mut self, ip: IpAddr, ask: impl FnOnce(IpAddr) -> bool) -> bool {
        if let Some(own) = self.known.get(&ip) {
            return *own;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let own = ask(ip);
        self.known.insert(ip, own);
        own
    }

    /// Asks again about the next known addresses. Returns whether any answer changed.
    pub fn renew(&mut self, ask: impl Fn(IpAddr) -> bool) -> bool {
        let after = self.renewed.map_or(Bound::Unbounded, Bound::Excluded);
        let mut renewed = None;
        let mut differs = false;
        for (ip, own) in self.known.range_mut((after, Bound::Unbounded)).take(AT_ONCE) {
            let now = ask(*ip);
            differs |= std::mem::replace(own, now) != now;
            renewed = Some(*ip);
        }
        self.renewed = renewed;
        differs
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, net::Ipv4Addr};

    use super::*;

    // D6
    #[test]
    fn an_address_that_is_known_costs_no_question_and_a_second_costs_64() {
        let (mut own, asked) = (OwnAddresses::default(), Cell::new(0));
        let ask = |_: IpAddr| {
            asked.set(asked.get() + 1);
            false
        };
        let address = |at: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, at));
        for _ in 0..3 {
            for at in 0..200 {
                assert!(!own.is_own(address(at), ask));
            }
        }
        assert_eq!(asked.get(), 200, "each address once");
        assert!(!own.renew(ask));
        assert_eq!(asked.get(), 264, "64 of them again");
    }
}
