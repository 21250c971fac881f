//! What an endpoint keeps whose certificates somebody else signs: its key, its leaf, and the root that signed it.

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

/// Name of the file with the private key, the leaf and the root.
const FILE: &str = "endpoint.pem";

/// Why an endpoint has no usable leaf.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The file or its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("{} does not hold the key and the certificate of this endpoint: asking for a new one", .0.display())]
    Content(PathBuf),
    /// A key or a request cannot be generated.
    #[error("cannot generate the key of this endpoint, or its request for a certificate")]
    Make(#[source] rcgen::Error),
    /// The certificate is of somebody else.
    #[error("the certificate is not of the tunnel endpoint {0}: check that operator and proxy have close versions")]
    Other(EndpointId),
    /// The certificate is of something else than a sidecar.
    #[error("the certificate is not of a sidecar: check that operator and proxy have close versions")]
    NoSidecar,
    /// The certificate does not count now.
    #[error("the certificate of this endpoint {0}: compare the clocks of the nodes")]
    Validity(#[from] ValidityError),
    /// The certificate is of another key.
    #[error("cannot use the certificate of this endpoint")]
    Use(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A private key for which a leaf is asked.
#[derive(Debug)]
pub struct EndpointKey(KeyPair);

impl EndpointKey {
    /// A new key.
    pub fn generate() -> Result<Self, EndpointError> {
        KeyPair::generate().map(Self).map_err(EndpointError::Make)
    }

    /// A request for a certificate of this key, DER. It names nobody: who signs knows who asks.
    pub fn request(&self) -> Result<Vec<u8>, EndpointError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "portlane tunnel endpoint");
        Ok(parameters.serialize_request(&self.0).map_err(EndpointError::Make)?.der().to_vec())
    }
}

/// Who has a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The endpoint of this id.
    Endpoint(EndpointId),
    /// A sidecar, whose leaf says its id.
    Sidecar,
}

impl Holder {
    /// The id of the holder by the URI of a leaf. Absent: the leaf is of somebody else.
    fn id(&self, uri: &str) -> Option<EndpointId> {
        match (self, Dial::from_uri(uri).ok()?) {
            (Self::Endpoint(id), Dial::Endpoint(found)) => (found == *id).then_some(found),
            (Self::Sidecar, Dial::Sidecar(found)) => Some(found),
            _ => None,
        }
    }

    /// Why a leaf is not one of the holder.
    fn other(&self) -> EndpointError {
        match self {
            Self::Endpoint(id) => EndpointError::Other(id.clone()),
            Self::Sidecar => EndpointError::NoSidecar,
        }
    }
}

/// A leaf with its key and the root that signed it.
#[derive(Debug)]
pub struct Leaf {
    /// The id of its holder.
    pub id: EndpointId,
    key: EndpointKey,
    certificate: CertificateDer<'static>,
    root: CertificateDer<'static>,
    /// Begin of its lifetime, seconds since 1970.
    pub not_before: u64,
    /// End of its lifetime, seconds since 1970.
    pub not_after: u64,
}

impl Leaf {
    /// Judges a certificate for `key` of `holder`. `now` is in seconds since 1970.
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

    /// TLS of a server with this leaf. The root follows it: an agent that enrols compares the root with its join string.
    pub fn config(&self, clock: Arc<dyn TimeProvider>) -> Result<ServerConfig, EndpointError> {
        let chain = vec![self.certificate.clone(), self.root.clone()];
        let key = PrivateKeyDer::Pkcs8(self.key.0.serialize_der().into());
        let leaf = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(EndpointError::Use)?;
        Ok(server_config(Arc::new(SingleCertAndKey::from(leaf)), &self.root, clock)?)
    }
}

/// The folder of an endpoint, which only one process uses.
#[derive(Clone, Debug)]
pub struct EndpointFolder(PathBuf);

impl EndpointFolder {
    /// Opens a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, EndpointError> {
        files::folder(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The leaf of `holder` that was kept. Absent: there is none. `now` is in seconds since 1970.
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

    /// Keeps a leaf, in place of an earlier one.
    pub fn keep(&self, leaf: &Leaf) -> Result<(), EndpointError> {
        let text = leaf.key.0.serialize_pem() + &pem(&leaf.certificate) + &pem(&leaf.root);
        Ok(files::write(&self.0.join(FILE), text.as_bytes())?)
    }
}
