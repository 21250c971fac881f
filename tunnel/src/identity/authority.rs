//! The root of the tunnels of one server, stored in a folder, or elsewhere as PEM.
//!
//! The root signs agents and the serving certificate of the server, and nothing else. It takes no name from a request:
//! a request proves possession of a key, and the ledger says whose key it is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData, SanType,
};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tunnel_core::{
    enrolment::MAX_REQUEST,
    identity::{AgentIdentity, EndpointId, Fingerprint, ValidityError, check_validity},
};

use super::{
    certificate::facts,
    files::{self, FileError},
};

#[cfg(test)]
mod tests;

/// How far the clock of an agent may lag behind.
pub const SKEW: Duration = Duration::from_secs(300);
/// Lifetime of a root, in seconds. Join strings pin the root, so every enrolment ends with it.
pub const LIFE: u64 = 10 * 365 * 24 * 3600;

/// Name of the file with the root and its key.
const FILE: &str = "root.pem";

/// Why the root cannot be used, or why it signs nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file or its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold a root.
    #[error(
        "{} does not hold the root of the tunnels and its key: restore the file, or remove it and issue new join \
         strings to all agents",
        .0.display()
    )]
    Content(PathBuf),
    /// The root is not valid now.
    #[error(
        "the root of the tunnels in {} {why}: check the clock of this server, and if it is right, remove the file and \
         issue new join strings to all agents",
        .path.display()
    )]
    Validity {
        /// The file.
        path: PathBuf,
        /// Why the root is not valid.
        why: ValidityError,
    },
    /// A certificate cannot be generated.
    #[error("cannot generate a certificate on this server")]
    Make(#[source] rcgen::Error),
    /// A generated certificate cannot be used.
    #[error("cannot use a generated certificate on this server")]
    Use(#[source] rustls::Error),
}

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is too long.
    #[error("the agent's request for a certificate has {0} bytes, and 4096 are allowed: use portlane as the agent")]
    TooLong(usize),
    /// The bytes are not a request, or its own key did not sign it.
    #[error("the agent's request for a certificate is not valid: use portlane as the agent")]
    Invalid(#[source] rcgen::Error),
    /// The key of the request is of another kind.
    #[error("the agent's key is not ECDSA on P-256: remove the key of the agent, and enrol again")]
    Algorithm,
}

/// A request whose sender has proved possession of the private key.
#[derive(Clone, Debug)]
pub struct Request {
    key: PublicKey,
}

impl Request {
    /// Reads a PKCS #10 request and verifies its signature. The names in it are ignored.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST {
            return Err(RequestError::TooLong(der.len()));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let key = parsed.map_err(RequestError::Invalid)?.public_key;
        if key.algorithm() == &PKCS_ECDSA_P256_SHA256 { Ok(Self { key }) } else { Err(RequestError::Algorithm) }
    }

    /// Fingerprint of the public key, for the ledger.
    pub fn key(&self) -> Fingerprint {
        Fingerprint::of(&self.key.subject_public_key_info())
    }
}

/// The root and its key.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_before: u64,
    not_after: u64,
}

impl Authority {
    /// Loads the root from a folder, or creates it with its key. One process at a time uses the folder. `now` is in
    /// seconds since 1970.
    pub fn open(folder: &Path, now: u64) -> Result<Self, AuthorityError> {
        files::folder(folder)?;
        let path = folder.join(FILE);
        let bytes = if let Some(bytes) = files::read(&path, files::PEM)? {
            bytes
        } else {
            let made = Self::generate(now)?.into_bytes();
            files::write(&path, &made)?;
            made
        };
        let root = Self::parse(&bytes).ok_or_else(|| AuthorityError::Content(path.clone()))?;
        root.check(now).map_err(|why| AuthorityError::Validity { path, why })?;
        Ok(root)
    }

    /// The certificate and the key of a new root, PEM.
    pub fn generate(now: u64) -> Result<String, AuthorityError> {
        make(now).map_err(AuthorityError::Make)
    }

    /// Whether the root is valid now.
    pub fn check(&self, now: u64) -> Result<(), ValidityError> {
        check_validity(self.not_before, self.not_after, now)
    }

    /// Reads the output of [`Authority::generate`]. Absent if the text is something else.
    pub fn parse(pem: &[u8]) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem).ok()?;
        let private = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let key = KeyPair::try_from(&private).ok()?;
        let facts = facts(&certificate)?;
        if facts.key != Fingerprint::of(&key.subject_public_key_info()) {
            return None;
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).ok()?;
        Some(Self { certificate, issuer, not_before: facts.not_before, not_after: facts.not_after })
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Fingerprint of the root certificate, for join strings.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The certificate of an agent, for the key of its request.
    pub fn sign(
        &self,
        request: &Request,
        identity: &AgentIdentity,
        lifetime: Duration,
        now: u64,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let name = ("portlane agent", identity.uri());
        self.issue(&request.key, name, ExtendedKeyUsagePurpose::ClientAuth, lifetime, now)
    }

    /// The certificate of an endpoint, for the key of its request.
    pub fn sign_endpoint(
        &self,
        request: &Request,
        id: &EndpointId,
        lifetime: Duration,
        now: u64,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let name = ("portlane tunnel endpoint", id.uri());
        self.issue(&request.key, name, ExtendedKeyUsagePurpose::ServerAuth, lifetime, now)
    }

    /// The certificate of a sidecar, for the key of its request. Agents do not accept it as the server's.
    pub fn sign_sidecar(
        &self,
        request: &Request,
        id: &EndpointId,
        lifetime: Duration,
        now: u64,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let name = ("portlane tunnel sidecar", id.sidecar_uri());
        self.issue(&request.key, name, ExtendedKeyUsagePurpose::ServerAuth, lifetime, now)
    }

    /// A serving certificate with its key, followed by the root: an enrolling agent compares the root with its join
    /// string.
    pub fn endpoint(&self, id: &EndpointId, lifetime: Duration, now: u64) -> Result<CertifiedKey, AuthorityError> {
        self.certified(("portlane tunnel endpoint", id.uri()), lifetime, now)
    }

    /// Like [`Authority::endpoint`], for a sidecar. Agents do not accept it as the server's.
    pub fn sidecar(&self, id: &EndpointId, lifetime: Duration, now: u64) -> Result<CertifiedKey, AuthorityError> {
        self.certified(("portlane tunnel sidecar", id.sidecar_uri()), lifetime, now)
    }

    fn certified(&self, name: (&str, String), lifetime: Duration, now: u64) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let leaf = self.issue(&key, name, ExtendedKeyUsagePurpose::ServerAuth, lifetime, now)?;
        let chain = vec![leaf, self.certificate.clone()];
        CertifiedKey::from_der(chain, PrivateKeyDer::from(key), &ring::default_provider()).map_err(AuthorityError::Use)
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        (common, uri): (&str, String),
        usage: ExtendedKeyUsagePurpose,
        lifetime: Duration,
        now: u64,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, common);
        parameters.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(AuthorityError::Make)?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        parameters.not_before = date(now.saturating_sub(SKEW.as_secs()));
        parameters.not_after = date(now.saturating_add(lifetime.as_secs()).min(self.not_after));
        let certificate = parameters.signed_by(key, &self.issuer).map_err(AuthorityError::Make)?;
        Ok(certificate.into())
    }
}

/// The certificate and the key of a new root, PEM.
fn make(now: u64) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, format!("portlane tunnels {now}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = date(now.saturating_sub(SKEW.as_secs()));
    parameters.not_after = date(now.saturating_add(LIFE));
    let certificate = parameters.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

fn date(seconds: u64) -> OffsetDateTime {
    i64::try_from(seconds)
        .ok()
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
