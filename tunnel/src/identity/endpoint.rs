//! The folder of an endpoint whose certificates another program signs: its key, its serving certificate, and the root
//! that signed it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use tunnel_core::identity::{Dial, EndpointId, ValidityError, check_validity};

use super::{
    certificate::{facts, pem},
    files::{self, FileError},
    tls::{TlsError, server_config},
};

/// Name of the file with the private key, the serving certificate and the root.
const FILE: &str = "endpoint.pem";

/// Why an endpoint has no usable serving certificate.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The file or its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold a serving certificate.
    #[error("{} does not hold the key and the certificate of this endpoint: asking for a new one", .0.display())]
    Content(PathBuf),
    /// A key or a request cannot be generated.
    #[error("cannot generate the key of this endpoint, or its request for a certificate")]
    Make(#[source] rcgen::Error),
    /// The certificate is for another endpoint.
    #[error("the certificate is not of the tunnel endpoint {0}: check that operator and proxy run compatible versions")]
    Other(EndpointId),
    /// The certificate is not for a sidecar.
    #[error("the certificate is not of a sidecar: check that operator and proxy run compatible versions")]
    NoSidecar,
    /// The certificate is not valid now.
    #[error("the certificate of this endpoint {0}: compare the clocks of the nodes")]
    Validity(#[from] ValidityError),
    /// The certificate is for another key.
    #[error("cannot use the certificate of this endpoint")]
    Use(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The private key for a serving certificate.
#[derive(Debug)]
pub struct EndpointKey(KeyPair);

impl EndpointKey {
    /// A new key.
    pub fn generate() -> Result<Self, EndpointError> {
        KeyPair::generate().map(Self).map_err(EndpointError::Make)
    }

    /// A certificate request for this key, DER. It has no name: the signer knows the applicant.
    pub fn request(&self) -> Result<Vec<u8>, EndpointError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "portlane tunnel endpoint");
        Ok(parameters.serialize_request(&self.0).map_err(EndpointError::Make)?.der().to_vec())
    }
}

/// The owner of a serving certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The endpoint of this id.
    Endpoint(EndpointId),
    /// A sidecar; the certificate has its id.
    Sidecar,
}

impl Holder {
    /// The id of the holder, from the URI of a certificate. Absent if the certificate is for another owner.
    fn id(&self, uri: &str) -> Option<EndpointId> {
        match (self, Dial::from_uri(uri).ok()?) {
            (Self::Endpoint(id), Dial::Endpoint(found)) => (found == *id).then_some(found),
            (Self::Sidecar, Dial::Sidecar(found)) => Some(found),
            _ => None,
        }
    }

    /// Why a certificate is not for this holder.
    fn other(&self) -> EndpointError {
        match self {
            Self::Endpoint(id) => EndpointError::Other(id.clone()),
            Self::Sidecar => EndpointError::NoSidecar,
        }
    }
}

/// A serving certificate with its key and the root that signed it.
#[derive(Debug)]
pub struct Leaf {
    /// The id of its holder.
    pub id: EndpointId,
    key: EndpointKey,
    certificate: CertificateDer<'static>,
    root: CertificateDer<'static>,
    /// Start of its lifetime, seconds since 1970.
    pub not_before: u64,
    /// End of its lifetime, seconds since 1970.
    pub not_after: u64,
}

impl Leaf {
    /// Checks a certificate for `key` of `holder`. `now` is in seconds since 1970.
    pub fn new(
        holder: &Holder,
        key: EndpointKey,
        certificate: CertificateDer<'static>,
        root: CertificateDer<'static>,
        now: u64,
    ) -> Result<Self, EndpointError> {
        let facts = facts(&certificate).ok_or_else(|| holder.other())?;
        let id = facts.uri.as_deref().and_then(|uri| holder.id(uri)).ok_or_else(|| holder.other())?;
        let (not_before, not_after) = (facts.not_before, facts.not_after);
        check_validity(not_before, not_after, now)?;
        Ok(Self { id, key, certificate, root, not_before, not_after })
    }

    /// The TLS configuration of a server with this certificate. The root follows in the chain: an enrolling agent
    /// compares it with its join string.
    pub fn config(&self, clock: Arc<dyn TimeProvider>) -> Result<ServerConfig, EndpointError> {
        let chain = vec![self.certificate.clone(), self.root.clone()];
        let key = PrivateKeyDer::Pkcs8(self.key.0.serialize_der().into());
        let leaf = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(EndpointError::Use)?;
        Ok(server_config(Arc::new(SingleCertAndKey::from(leaf)), &self.root, clock)?)
    }
}

/// The folder of an endpoint. Only one process uses it.
#[derive(Clone, Debug)]
pub struct EndpointFolder(PathBuf);

impl EndpointFolder {
    /// Opens a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, EndpointError> {
        files::folder(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The stored certificate of `holder`. Absent if there is none. `now` is in seconds since 1970.
    pub fn leaf(&self, holder: &Holder, now: u64) -> Result<Option<Leaf>, EndpointError> {
        let path = self.0.join(FILE);
        let Some(bytes) = files::read(&path, files::PEM)? else { return Ok(None) };
        let private = PrivateKeyDer::from_pem_slice(&bytes).ok();
        let key = private.and_then(|private| KeyPair::try_from(&private).ok()).map(EndpointKey);
        let mut certificates = CertificateDer::pem_slice_iter(&bytes);
        let (Some(key), Some(Ok(certificate)), Some(Ok(root))) = (key, certificates.next(), certificates.next()) else {
            return Err(EndpointError::Content(path));
        };
        Leaf::new(holder, key, certificate, root, now).map(Some)
    }

    /// Stores a serving certificate, replacing an earlier one.
    pub fn keep(&self, leaf: &Leaf) -> Result<(), EndpointError> {
        let text = leaf.key.0.serialize_pem() + &pem(&leaf.certificate) + &pem(&leaf.root);
        Ok(files::write(&self.0.join(FILE), text.as_bytes())?)
    }
}
