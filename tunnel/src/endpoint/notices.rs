//! The notices of an endpoint about failed connections that its owner can fix. The agent logs the rest.

use std::io;
use std::net::SocketAddr;

use proxy_api::with_causes;
use tunnel_core::hello::Denial;
use tunnel_core::identity::AgentIdentity;
use tunnel_core::notices::{About, Notice};

use super::Endpoint;
use crate::CarryEnd;
use crate::handshake::HandshakeError;
use crate::identity::tls::ServerFailure;

impl Endpoint {
    /// Takes the notices to log now: of each kind at most one a minute, with the remedy. Call it about once a second.
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.borrow_mut().take(self.start.elapsed())
    }

    /// Notes that TLS with a client has failed.
    pub(super) fn note_unsecured(&self, from: SocketAddr, error: &io::Error) {
        let failure = error.get_ref().and_then(|error| error.downcast_ref::<ServerFailure>());
        if let Some((failure, (kind, about))) = failure.and_then(|failure| Some((failure, of_tls(failure)?))) {
            self.note(kind, about, || (from.ip().to_string(), failure.to_string()));
        }
    }

    /// Notes that an agent with a valid certificate was not admitted.
    pub(super) fn note_not_admitted(&self, identity: &AgentIdentity, error: &HandshakeError) {
        if let Some(kind) = of_handshake(error) {
            self.note(kind, About::Known, || (identity.agent().to_string(), with_causes(error)));
        }
    }

    /// Notes that the connection of an agent has ended.
    pub(super) fn note_end(&self, identity: &AgentIdentity, end: &CarryEnd) {
        if matches!(end, CarryEnd::Violation(_)) {
            self.note("violation", About::Known, || (identity.agent().to_string(), end.to_string()));
        }
    }

    fn note(&self, kind: &'static str, about: About, told: impl FnOnce() -> (String, String)) {
        self.notices.borrow_mut().note(kind, about, told);
    }
}

/// The kind of a TLS failure that is logged, and its subject. Any client can cause those of strangers: an alert comes
/// before a client has authenticated, and a certificate of another server may be anybody's. So an alert has a kind of
/// its own. Other failures do not concern the owner, or are noise of port scanners.
fn of_tls(failure: &ServerFailure) -> Option<(&'static str, About)> {
    match failure {
        ServerFailure::Clock(_) => Some(("clock", About::Known)),
        ServerFailure::NotAnAgent => Some(("certificate", About::Known)),
        ServerFailure::OtherServer => Some(("certificate", About::Stranger)),
        ServerFailure::Expired => Some(("alert", About::Stranger)),
        ServerFailure::Refused | ServerFailure::OtherProtocol | ServerFailure::Other(_) => None,
    }
}

/// The kind of a failed handshake that is logged. Other failures are temporary, or their owner caused them on purpose.
fn of_handshake(error: &HandshakeError) -> Option<&'static str> {
    match error {
        HandshakeError::Denied(denied) => match denied.reason {
            Denial::Version | Denial::Instances | Denial::Revoked | Denial::Full => Some(denied.reason.as_str()),
            Denial::Stale
            | Denial::Superseded
            | Denial::Suspended
            | Denial::Unknown
            | Denial::Draining
            | Denial::Other => None,
        },
        HandshakeError::Version { .. } => Some("version"),
        HandshakeError::Protocol(_) => Some("violation"),
        HandshakeError::TimedOut | HandshakeError::Closed | HandshakeError::Io(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tunnel_core::Violation;
    use tunnel_core::hello::Denied;
    use tunnel_core::identity::{Span, ValidityError};

    use super::*;

    #[test]
    fn what_the_owner_of_the_server_can_mend_is_told_and_what_a_stranger_says_displaces_nothing() {
        let expired = ServerFailure::Clock(ValidityError::Expired(Span(86_400)));
        assert_eq!(of_tls(&expired), Some(("clock", About::Known)));
        assert!(expired.to_string().contains("check this clock"), "{expired}");
        let alert = ServerFailure::Expired;
        assert_eq!(of_tls(&alert), Some(("alert", About::Stranger)), "the server's clock may be ahead");
        assert!(alert.to_string().contains("any client can say so"), "{alert}");
        assert_eq!(of_tls(&ServerFailure::NotAnAgent), Some(("certificate", About::Known)));
        assert_eq!(of_tls(&ServerFailure::OtherServer), Some(("certificate", About::Stranger)));
        for silent in [ServerFailure::OtherProtocol, ServerFailure::Refused, ServerFailure::Other(String::new())] {
            assert_eq!(of_tls(&silent), None);
        }
    }

    #[test]
    fn denials_are_told_by_their_reasons_if_the_owner_did_not_ask_for_them() {
        let denied = |reason| HandshakeError::Denied(Denied { reason, detail: String::new() });
        let told: Vec<&str> = Denial::ALL.into_iter().filter_map(|reason| of_handshake(&denied(reason))).collect();
        assert_eq!(told, ["version", "instances", "revoked", "full"]);
        assert_eq!(of_handshake(&HandshakeError::Protocol(Violation::Stale)), Some("violation"));
        assert_eq!(of_handshake(&HandshakeError::TimedOut), None);
    }
}
