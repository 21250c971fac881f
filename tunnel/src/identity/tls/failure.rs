//! Why a handshake failed, in words for the person who can fix it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};
use tunnel_core::identity::{EndpointId, Span, ValidityError};

/// The mismatch that an agent finds in an otherwise valid certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("the root certificate is not the one in the join string")]
    OtherRoot,
    #[error("the certificate is not of a tunnel endpoint")]
    NotAnEndpoint,
    #[error("endpoint {found} answers in place of {wanted}")]
    OtherEndpoint { wanted: EndpointId, found: EndpointId },
    #[error("the dial names no endpoint")]
    NotDialled,
}

/// Why a handshake or the first read failed, in words for the owner of the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentFailure {
    /// The server's root is not the one that the agent trusts.
    #[error(
        "the root certificate of the server is not the one that this agent trusts: check the address, or enrol with a \
         join string of this server"
    )]
    OtherServer,
    /// The server's certificate is not valid now.
    #[error("the certificate of the server {0} by the clock of this machine: check this clock, then the server's")]
    Clock(ValidityError),
    /// The server is not a tunnel endpoint.
    #[error("the server is not a tunnel endpoint: check that the address is the one of its tunnel port")]
    NotAnEndpoint,
    /// Another endpoint answered.
    #[error("endpoint {found} of the server answered in place of {wanted}: dial again")]
    OtherEndpoint {
        /// The endpoint that was dialled.
        wanted: EndpointId,
        /// The endpoint that answered.
        found: EndpointId,
    },
    /// The server finds that the agent's certificate is not valid now.
    #[error(
        "the server finds the certificate of this agent expired or not yet valid: check the clock of this machine and \
         the server's, and if both are right, enrol again with a new join string"
    )]
    Expired,
    /// The server does not accept the agent's certificate.
    #[error("the server refuses the certificate of this agent: enrol again with a new join string of this server")]
    Refused,
    /// The two ends have no protocol in common.
    #[error(
        "the server does not speak the protocol of this agent: check that the address is the one of a tunnel port, and \
         that server and agent run compatible versions"
    )]
    OtherProtocol,
    /// Any other failure.
    #[error("TLS with the server failed, {0}: check for proxies and firewalls between this agent and the server")]
    Other(String),
}

/// Why a handshake failed, in words for the owner of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFailure {
    /// The agent's certificate is not valid now.
    #[error(
        "the certificate of the agent {0} by the clock of this server: check this clock, and if it is right, issue a \
         new join string to the agent"
    )]
    Clock(ValidityError),
    /// Another root signed the certificate of the client.
    #[error("the client's certificate was issued by another server: issue a join string of this server to the agent")]
    OtherServer,
    /// The certificate is not a client's.
    #[error("the client presents a certificate that is not of an agent: issue a join string to the agent")]
    NotAnAgent,
    /// An unauthenticated client reports that the server's certificate is not valid now.
    #[error(
        "a client that has not authenticated finds the certificate of this server expired or not yet valid, and any \
         client can say so: if the log of an agent says it too, check the clock of this server, and if it is right, \
         the agent's"
    )]
    Expired,
    /// The client does not accept the server.
    #[error("the client refuses this server's certificate: the agent says why")]
    Refused,
    /// The two ends have no protocol in common.
    #[error("the client does not speak the protocol of tunnels: update the agent, or keep other clients off this port")]
    OtherProtocol,
    /// Any other failure.
    #[error("TLS with the client failed, {0}")]
    Other(String),
}

impl AgentFailure {
    /// The meaning of an error of a TLS stream for the agent. Absent if the error is not of TLS.
    pub fn of(error: &io::Error) -> Option<Self> {
        tls_error(error).map(|error| match error {
            Error::InvalidCertificate(flaw) => Self::of_certificate(flaw),
            Error::AlertReceived(AlertDescription::CertificateExpired) => Self::Expired,
            Error::AlertReceived(alert) if is_refusal(*alert) => Self::Refused,
            other if is_other_protocol(other) => Self::OtherProtocol,
            other => Self::Other(other.to_string()),
        })
    }

    fn of_certificate(flaw: &CertificateError) -> Self {
        if let Some(why) = validity(flaw) {
            return Self::Clock(why);
        }
        match flaw {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherServer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::NotAnEndpoint,
            CertificateError::Other(other) => match other.0.downcast_ref::<Mismatch>() {
                Some(Mismatch::OtherRoot) => Self::OtherServer,
                Some(Mismatch::OtherEndpoint { wanted, found }) => {
                    Self::OtherEndpoint { wanted: wanted.clone(), found: found.clone() }
                }
                Some(Mismatch::NotAnEndpoint) => Self::NotAnEndpoint,
                Some(Mismatch::NotDialled) | None => Self::Other(flaw.to_string()),
            },
            _ => Self::Other(flaw.to_string()),
        }
    }
}

impl ServerFailure {
    /// The meaning of an error of a TLS stream for the server. Absent if the error is not of TLS.
    pub fn of(error: &io::Error) -> Option<Self> {
        tls_error(error).map(|error| match error {
            Error::InvalidCertificate(flaw) => Self::of_certificate(flaw),
            Error::AlertReceived(AlertDescription::CertificateExpired) => Self::Expired,
            Error::AlertReceived(alert) if is_refusal(*alert) => Self::Refused,
            other if is_other_protocol(other) => Self::OtherProtocol,
            other => Self::Other(other.to_string()),
        })
    }

    fn of_certificate(flaw: &CertificateError) -> Self {
        if let Some(why) = validity(flaw) {
            return Self::Clock(why);
        }
        match flaw {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherServer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::NotAnAgent,
            _ => Self::Other(flaw.to_string()),
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// Whether the peer refuses the certificate that it received.
fn is_refusal(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

fn is_other_protocol(error: &Error) -> bool {
    matches!(
        error,
        Error::NoApplicationProtocol
            | Error::InvalidMessage(_)
            | Error::PeerIncompatible(_)
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion)
    )
}

/// By how much a certificate is expired or not yet valid.
fn validity(flaw: &CertificateError) -> Option<ValidityError> {
    let span = |late: &UnixTime, early: &UnixTime| Span(late.as_secs().saturating_sub(early.as_secs()));
    match flaw {
        CertificateError::ExpiredContext { time, not_after } => Some(ValidityError::Expired(span(time, not_after))),
        CertificateError::NotValidYetContext { time, not_before } => {
            Some(ValidityError::NotYet(span(not_before, time)))
        }
        _ => None,
    }
}
