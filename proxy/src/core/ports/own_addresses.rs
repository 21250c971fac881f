//! The addresses that belong to this host. A lookup costs system calls, so answers are cached. A few answers are
//! renewed each second, because an interface may get another address.

use std::{collections::BTreeMap, net::IpAddr, ops::Bound};

/// Most addresses in the cache. If there are more, the cache is cleared, and fills again on demand.
const MOST: usize = 16_384;
/// The most addresses that one [`OwnAddresses::renew`] looks up.
const AT_ONCE: usize = 64;

/// Addresses, and whether they belong to this host.
#[derive(Debug, Default)]
pub struct OwnAddresses {
    known: BTreeMap<IpAddr, bool>,
    /// The address that was renewed last.
    renewed: Option<IpAddr>,
}

impl OwnAddresses {
    /// Whether an address belongs to this host. Calls `ask` for an unknown address.
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

    /// Looks up the next cached addresses again. Returns whether any answer changed.
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
