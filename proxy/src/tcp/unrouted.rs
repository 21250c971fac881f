//! Connections to shared sockets that belong to no listener: each is counted, and some are logged.

use std::net::SocketAddr;

use crate::{
    core::logging::unrouted::Unroutable,
    log::{Level, Notice},
    route::Names,
    worker::Worker,
};

/// Counts a connection that belongs to no listener. For each reason, one is logged from time to time, because a client
/// sees only that its connection ends.
pub fn refuse(worker: &Worker, names: &Names, why: Unroutable, client: SocketAddr, asked: Option<&str>) {
    let count = names.unrouted.count(why);
    let Some(words) = words(why, asked) else { return };
    let Some(since) = names.unrouted.due(why, worker.process.clock.seconds(), count) else { return };
    let first = names.first();
    let socket = first.spec.load().socket;
    let others = match since {
        0 | 1 => String::new(),
        more => format!("; {} more since the last such line", more - 1),
    };
    let message = format!("{client} to {socket} {words}{others}");
    worker.process.log.notice(Level::Warn, "unrouted", &first.id, message);
}

/// The notices about connections that came soon after a line and were the last of their kind.
#[must_use]
pub fn rest(names: &Names, now: u64) -> Vec<Notice> {
    let first = names.first();
    let socket = first.spec.load().socket;
    let notice = |(why, count): (Unroutable, u64)| Notice {
        level: Level::Warn,
        event: "unrouted",
        subject: (&first.id).into(),
        message: format!("{count} more to {socket} since the last such line ({})", why.as_str()),
    };
    names.unrouted.rest(now).into_iter().map(notice).collect()
}

/// Describes the client's fault and the remedy; `None` if nobody has to do anything. A server name has only letters,
/// digits and `-._`, at most 253 of them: other texts are no names.
fn words(why: Unroutable, asked: Option<&str>) -> Option<String> {
    let words = match why {
        Unroutable::UnknownServerName => {
            let asked = asked.unwrap_or_default();
            return Some(format!("asked for '{asked}', which no listener on this port has in tls.hostnames"));
        }
        Unroutable::NoServerName => {
            "named no server in its TLS ClientHello, or one that is not valid (an IP address, or characters that no DNS \
             name has), so that no listener can be chosen"
        }
        Unroutable::NotTls => {
            "did not begin with a TLS ClientHello; protocols that switch to TLS later (STARTTLS, PostgreSQL before 17) \
             need a port and a TCP listener of their own"
        }
        Unroutable::HandshakeTimeout => {
            "sent no complete TLS ClientHello in time; clients of protocols in which the server speaks first (MySQL, \
             SMTP) need a port and a TCP listener of their own"
        }
        Unroutable::UntrustedPeer => "must send a PROXY header, but is not in proxyProtocol.trustedCIDRs",
        Unroutable::BadHeader => "sent no valid PROXY header, which proxyProtocol of this port requires",
        // Only the metric counts these: a busy proxy, health checks, and clients that changed their mind.
        Unroutable::HandshakeLimit | Unroutable::Probe | Unroutable::ClientLeft => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_name_that_was_asked_for() {
        let words = words(Unroutable::UnknownServerName, Some("a.example")).expect("told");
        assert!(words.contains("'a.example'"), "{words}");
    }

    #[test]
    fn the_last_connections_of_a_flood_are_told_when_a_line_is_due_again() {
        let unrouted = crate::core::logging::unrouted::Unrouted::default();
        let told = (0..40).filter_map(|_| unrouted.due(Unroutable::NotTls, 0, unrouted.count(Unroutable::NotTls)));
        assert_eq!(told.collect::<Vec<_>>(), [1]);
        unrouted.count(Unroutable::Probe);
        assert!(unrouted.rest(1).is_empty());
        assert_eq!(unrouted.rest(100), [(Unroutable::NotTls, 39)], "probes are no line");
        assert!(unrouted.rest(200).is_empty());
    }

    #[test]
    fn a_name_that_is_not_valid_is_not_told_as_none() {
        assert!(words(Unroutable::NoServerName, None).is_some_and(|words| words.contains("not valid")));
    }

    #[test]
    fn probes_and_clients_that_leave_are_no_line() {
        let told = Unroutable::ALL.into_iter().filter(|why| words(*why, None).is_some());
        assert_eq!(told.count(), 6);
        assert_eq!(words(Unroutable::Probe, None), None);
    }
}
