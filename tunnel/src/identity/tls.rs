//! TLS of tunnels: only version 1.3, with ring.
//!
//! Certificates have URIs as names, never hosts: an agent may reach an endpoint at any address. TLS sessions are not
//! resumed, so every handshake verifies both certificates.

mod failure;
#[cfg(test)]
mod tests;
mod verifier;

use std::sync::Arc;

use rustls::{
    ClientConfig, CommonState, ConfigBuilder, RootCertStore, ServerConfig,
    client::{Resumption, WantsClientCert},
    crypto::ring,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName},
    server::{NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier},
    time_provider::TimeProvider,
    version::TLS13,
};
use tunnel_core::identity::{AgentIdentity, Dial, EndpointId, Fingerprint};

pub use self::failure::{AgentFailure, ServerFailure};
use self::verifier::{AgentVerifier, EndpointVerifier, Trust};
use super::{
    agent::{AgentKey, Enrolled},
    certificate::facts,
};

/// The ALPN protocol of carriers.
pub const PROTOCOL: &[u8] = b"portlane-tunnel/1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Rejected by rustls.
    #[error("cannot set up TLS for tunnels")]
    Tls(#[source] rustls::Error),
    /// The root cannot be used.
    #[error("cannot verify agents with the root of the tunnels")]
    Verifier(#[source] VerifierBuilderError),
    /// The id of an endpoint is not a DNS name.
    #[error("cannot dial the endpoint by its id")]
    Name(#[source] InvalidDnsNameError),
}

/// The TLS configuration of a server. A client without a certificate is admitted as a stranger, which may only enrol.
pub fn server_config(
    leaf: Arc<dyn ResolvesServerCert>,
    root: &CertificateDer<'_>,
    clock: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots(root).map_err(TlsError::Tls)?);
    let algorithms = provider.signature_verification_algorithms;
    let agents = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).allow_unauthenticated();
    let agents = agents.build().map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_details(provider, clock)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Tls)?
        .with_client_cert_verifier(Arc::new(AgentVerifier { agents, roots, algorithms }))
        .with_cert_resolver(leaf);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The TLS configuration of an agent that enrols. It trusts the root with this fingerprint, which the server sends
/// after its certificate.
pub fn enrolment_config(root: Fingerprint, clock: Arc<dyn TimeProvider>) -> Result<ClientConfig, TlsError> {
    Ok(finished(trusting(Trust::Pinned(root), clock)?.with_no_client_auth()))
}

/// The TLS configuration of an enrolled agent.
pub fn agent_config(
    key: &AgentKey,
    enrolled: &Enrolled,
    clock: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsError> {
    let roots = roots(&enrolled.root).map_err(TlsError::Tls)?;
    let config = trusting(Trust::Kept(roots), clock)?;
    let config = config.with_client_auth_cert(vec![enrolled.certificate.clone()], key.private());
    Ok(finished(config.map_err(TlsError::Tls)?))
}

fn roots(root: &CertificateDer<'_>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    Ok(roots)
}

fn trusting(
    trust: Trust,
    clock: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ClientConfig::builder_with_details(provider, clock).with_protocol_versions(&[&TLS13]).map_err(TlsError::Tls)?;
    let verifier = Arc::new(EndpointVerifier { trust, algorithms });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The server name for a dial. The agent's TLS verifies that the endpoint is the dialled one.
pub fn server_name(dial: &Dial) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(dial.server_name()).map_err(TlsError::Name)
}

/// Whether the peer negotiated the protocol of carriers. rustls admits a peer that offers no protocol at all.
pub fn speaks_tunnel(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(PROTOCOL)
}

/// The client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client without a certificate. It may enrol, and nothing else.
    Stranger,
    /// An agent.
    Agent(AgentIdentity),
}

/// A certificate of the root for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not an agent.
    #[error("the client's certificate is not of an agent: the agent has to enrol with a join string of this server")]
    NotAnAgent,
    /// Not an endpoint.
    #[error("the server's certificate is not of a tunnel endpoint: check the address of the tunnel server")]
    NotAnEndpoint,
}

/// The client of a verified connection, from its certificates.
pub fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Result<Peer, PeerError> {
    let Some(leaf) = certificates.and_then(<[_]>::first) else { return Ok(Peer::Stranger) };
    let uri = facts(leaf).and_then(|facts| facts.uri);
    let identity = uri.and_then(|uri| AgentIdentity::from_uri(&uri).ok());
    identity.map(Peer::Agent).ok_or(PeerError::NotAnAgent)
}

/// The endpoint of a verified connection, from its certificates.
pub fn endpoint(certificates: Option<&[CertificateDer<'_>]>) -> Result<EndpointId, PeerError> {
    certificates.and_then(<[_]>::first).and_then(endpoint_of).ok_or(PeerError::NotAnEndpoint)
}

/// The root certificate that a server sent after its own, for an agent that has just enrolled.
pub fn sent_root(certificates: Option<&[CertificateDer<'_>]>, root: &Fingerprint) -> Option<CertificateDer<'static>> {
    let found = certificates?.iter().skip(1).find(|other| root.same(&Fingerprint::of(other)))?;
    Some(found.clone().into_owned())
}

fn endpoint_of(leaf: &CertificateDer<'_>) -> Option<EndpointId> {
    EndpointId::from_uri(&facts(leaf)?.uri?).ok()
}

/// The dial that accepts only the owner of this certificate.
fn dial_to(leaf: &CertificateDer<'_>) -> Option<Dial> {
    Dial::from_uri(&facts(leaf)?.uri?).ok()
}
