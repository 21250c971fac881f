//! The verification of an endpoint by an agent, and of an agent by a server.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tunnel_core::identity::{Dial, Fingerprint};

use super::{dial_to, failure::Mismatch, roots};

/// The root that an agent trusts.
#[derive(Debug)]
pub(super) enum Trust {
    /// The root with this fingerprint; the server sends the certificate.
    Pinned(Fingerprint),
    /// The root that the agent stores.
    Kept(RootCertStore),
}

/// Verifies that a server is an endpoint or a sidecar of the trusted root, and that it is the dialled one.
#[derive(Debug)]
pub(super) struct EndpointVerifier {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
    }
}

impl EndpointVerifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(&leaf, roots, &[], now, self.algorithms.all)
        };
        match &self.trust {
            Trust::Kept(roots) => verify(roots),
            Trust::Pinned(wanted) => {
                let root = others.iter().find(|other| wanted.same(&Fingerprint::of(other)));
                verify(&roots(root.ok_or(Mismatch::OtherRoot)?)?)
            }
        }
    }
}

impl ServerCertVerifier for EndpointVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_chain(end_entity, intermediates, now)?;
        let found = dial_to(end_entity).ok_or(Mismatch::NotAnEndpoint)?;
        let wanted = Dial::from_server_name(&server_name.to_str()).ok_or(Mismatch::NotDialled)?;
        if wanted.accepts(&found) {
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = match (wanted, found) {
            (Dial::Endpoint(wanted), Dial::Endpoint(found)) | (Dial::Sidecar(wanted), Dial::Sidecar(found)) => {
                Mismatch::OtherEndpoint { wanted, found }
            }
            _ => Mismatch::NotAnEndpoint,
        };
        Err(mismatch.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies that a client is an agent of the root. The verifier of rustls checks the dates and the purpose of a
/// certificate before its issuer. So any client could present a self-made one, and be taken for an agent with a wrong
/// clock.
#[derive(Debug)]
pub(super) struct AgentVerifier {
    pub(super) agents: Arc<dyn ClientCertVerifier>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl AgentVerifier {
    /// Whether the root has issued a certificate that is valid at this time, for an agent or for an endpoint.
    fn is_of_root(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], at: UnixTime) -> bool {
        let verify = |leaf: &ParsedCertificate<'_>| {
            verify_server_cert_signed_by_trust_anchor(leaf, &self.roots, others, at, self.algorithms.all)
        };
        let is_endpoint = || ParsedCertificate::try_from(leaf).is_ok_and(|leaf| verify(&leaf).is_ok());
        self.agents.verify_client_cert(leaf, others, at).is_ok() || is_endpoint()
    }
}

impl ClientCertVerifier for AgentVerifier {
    fn offer_client_auth(&self) -> bool {
        self.agents.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.agents.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.agents.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.agents.verify_client_cert(end_entity, intermediates, now);
        let at = match &verified {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => *not_after,
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => *not_before,
            Err(Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            )) => now,
            _ => return verified,
        };
        if self.is_of_root(end_entity, intermediates, at) {
            return verified;
        }
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.agents.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.agents.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.agents.supported_verify_schemes()
    }
}
