//! Hop limits of datagrams (the TTL of IPv4). A proxy lowers them, as a router does, so that no datagram goes round for ever,
//! whichever fleets and addresses it passes.

/// The most hops that a datagram has left when it arrives, whatever its sender has set: the value that new sockets have on
/// most systems.
const MOST: u8 = 64;
/// Hops that suffice for every path, as far as is known.
const AMPLE: u8 = 32;

/// A datagram has no hop left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp;

/// The hop limit to send a datagram with that was `received` with this one. `None` is the one of a new socket: the system
/// did not tell that of the datagram.
///
/// # Errors
/// A router would not pass the datagram on.
pub fn next(received: Option<u8>) -> Result<Option<u8>, UsedUp> {
    let Some(received) = received else { return Ok(None) };
    match received.min(MOST) {
        0 | 1 => Err(UsedUp),
        hops => Ok(Some(hops - 1)),
    }
}

/// Whether a router on the way to the endpoint may find the hop limit used up. It then answers as if it could not reach the
/// endpoint, which is the sender's doing.
#[must_use]
pub fn may_run_out(hops: u8) -> bool {
    hops < AMPLE
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    #[test]
    fn each_proxy_takes_one_hop_and_the_last_one_drops_the_datagram() {
        for first in [64, 65, 128, 255] {
            let passed = iter::successors(Some(Some(first)), |hops| next(*hops).ok());
            assert_eq!(passed.count(), 64, "{first}: the sender's own, and one of each of 63 proxies");
        }
        assert_eq!(next(Some(64)), Ok(Some(63)));
        assert_eq!(next(Some(32)), Ok(Some(31)), "a sender with fewer hops keeps them");
        assert_eq!(next(Some(2)), Ok(Some(1)));
        assert_eq!([next(Some(1)), next(Some(0))], [Err(UsedUp), Err(UsedUp)]);
    }

    #[test]
    fn what_the_system_does_not_tell_changes_nothing() {
        assert_eq!(next(None), Ok(None));
    }

    #[test]
    fn hops_of_a_usual_sender_run_out_nowhere_before_it_is_far_away() {
        assert!(!may_run_out(63) && !may_run_out(32));
        assert!(may_run_out(31) && may_run_out(1));
    }
}
