//! TLS configuration: version 1.3 only, with ring.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
    server::ResolvesServerCert,
    version::TLS13,
};

/// Unusable keys or certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("the CA bundle is not valid PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// PEM without a certificate.
    #[error("the CA bundle contains no certificate")]
    NoRoots,
    /// Rejected by rustls.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Parses a PEM bundle of CA certificates.
///
/// # Errors
/// See [`TlsError`].
pub fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.map_err(TlsError::Pem)?).map_err(TlsError::Tls)?;
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

/// TLS configuration of the proxy.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(pem: &str) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Tls)?
        .with_root_certificates(roots(pem)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// TLS configuration of the operator; the resolver may return another certificate at each handshake.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
