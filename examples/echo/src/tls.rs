//! A TLS server with a self-signed certificate.

use std::{io, sync::Arc};

use rcgen::{CertificateParams, DnType, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// Accepts TLS connections with a certificate for the host.
///
/// # Errors
/// The host is not a valid name for a certificate.
pub(crate) fn acceptor(host: &str) -> io::Result<TlsAcceptor> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut certificate = CertificateParams::new([host.to_owned()]).map_err(io::Error::other)?;
    certificate.distinguished_name.push(DnType::CommonName, host);
    let certificate = certificate.self_signed(&key).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}
