//! Errors that mean that an endpoint cannot be reached, for TCP and UDP alike.

use std::io;

use rustix::io::Errno;

/// Errors on the path to an endpoint for which `ErrorKind` has no stable value, or one that other errors share. A
/// router or a firewall on the path may refuse with "administratively prohibited" (`EACCES` on IPv6) or "protocol
/// unreachable" (`ENOPROTOOPT`). This host refuses with `EACCES` (a `prohibit` route), `EINVAL` (a `blackhole` route),
/// or `EAFNOSUPPORT` (a kernel without IPv6).
const REFUSALS: [Errno; 6] =
    [Errno::ACCESS, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::NETDOWN, Errno::INVAL, Errno::AFNOSUPPORT];

/// Whether an error belongs to the endpoint or the path to it, so that another endpoint may do better; not to this
/// host, which has no free port, descriptor or memory for any endpoint.
#[must_use]
pub fn is_of_the_endpoint(error: &io::Error) -> bool {
    let is_refused =
        error.raw_os_error().is_some_and(|number| REFUSALS.iter().any(|errno| errno.raw_os_error() == number));
    is_refused
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_way_to_an_endpoint_answers_is_its_fault_and_lacking_room_is_not() {
        let is_charged = |error: Errno| is_of_the_endpoint(&io::Error::from(error));
        let of_the_way = [Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::CONNREFUSED, Errno::TIMEDOUT];
        for error in REFUSALS.into_iter().chain(of_the_way) {
            assert!(is_charged(error), "{error}");
        }
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::AGAIN] {
            assert!(!is_charged(error), "{error}");
        }
    }
}
