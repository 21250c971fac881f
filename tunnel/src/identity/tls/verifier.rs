//! How an agent verifies an endpoint.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tunnel_core::identity::{Dial, Fingerprint};

use super::{dial_to, failure::Mismatch, roots};

/// What an agent trusts.
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
