//! The local ports that Linux gives to sockets that name none. Each protocol has all of them for itself; both address
//! families share them.

/// The number of these ports, from the text of `/proc/sys/net/ipv4/ip_local_port_range`: the first port and the last
/// one. `None`: the text is malformed.
#[must_use]
pub fn count(range: &str) -> Option<usize> {
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    if ends.next().is_some() {
        return None;
    }
    Some(usize::from(last.checked_sub(first)?) + 1)
}
