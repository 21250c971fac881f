//! The folder of an agent: a private key that never leaves it, the certificate, and the root that signed it.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tunnel_core::identity::{AgentIdentity, Fingerprint, ValidityError, check_validity, renewal_due};

use super::{
    certificate::{facts, pem},
    files::{self, FileError},
};

mod joined;
mod lock;
#[cfg(test)]
mod tests;

pub use self::joined::Joined;
pub use self::lock::Lock;

/// Name of the file with the private key.
const KEY: &str = "key.pem";
/// Name of the file with the certificate and the root.
const CERTIFICATE: &str = "certificate.pem";

/// The fault of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The certificate cannot be read, or is not for an agent.
    #[error("is not the certificate of an agent")]
    NotOfAgent,
    /// The certificate is for another key.
    #[error("is for another key than the one in key.pem")]
    OtherKey,
    /// The root beside the certificate did not sign it.
    #[error("was not signed by the root certificate beside it")]
    Untrusted,
    /// The certificate is not valid now.
    #[error(transparent)]
    Validity(#[from] ValidityError),
}

impl Flaw {
    /// The remedy for a certificate in the folder.
    fn remedy(self) -> &'static str {
        match self {
            Self::Validity(_) => {
                "check the clock of this machine, and if it is right, enrol again with a new join string of the server"
            }
            _ => "enrol again with a new join string of the server",
        }
    }

    /// The remedy for a certificate that was just issued.
    fn remedy_for_issued(self) -> &'static str {
        match self {
            Self::Validity(_) => "compare the clock of this machine with the clock of the server",
            _ => "check that the server runs a released portlane, and try again",
        }
    }
}

/// Why an agent has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or the folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process uses the folder.
    #[error(
        "another agent runs with the folder {}: stop it, or give this one a folder of its own with --data, where it \
         enrols with a join string",
        .0.display()
    )]
    InUse(PathBuf),
    /// The key file does not hold a key.
    #[error(
        "{} holds no private key of an agent: remove it, and enrol again with a new join string of the server",
        .0.display()
    )]
    Key(PathBuf),
    /// The file about the join string is damaged.
    #[error("{} is damaged: remove it, and enrol again with a new join string of the server", .0.display())]
    Joined(PathBuf),
    /// The certificate in the folder cannot be used.
    #[error("the certificate of this agent in {} {flaw}: {}", .path.display(), .flaw.remedy())]
    Kept {
        /// The file.
        path: PathBuf,
        /// The fault of the certificate.
        flaw: Flaw,
    },
    /// The certificate that the server issued cannot be used.
    #[error("the certificate that the server issued {flaw}: {}", .flaw.remedy_for_issued())]
    Issued {
        /// The fault of the certificate.
        flaw: Flaw,
    },
    /// A key or a request cannot be generated.
    #[error("cannot generate the key of this agent, or its request for a certificate")]
    Make(#[source] rcgen::Error),
}

/// The private key of an agent.
#[derive(Debug)]
pub struct AgentKey(KeyPair);

impl AgentKey {
    /// A certificate request for this key, DER. It has no name: the token identifies the agent.
    pub fn request(&self) -> Result<Vec<u8>, AgentError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "portlane agent");
        Ok(parameters.serialize_request(&self.0).map_err(AgentError::Make)?.der().to_vec())
    }

    /// Fingerprint of the public key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0.subject_public_key_info())
    }

    /// The key, for TLS.
    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.serialize_der().into())
    }
}

/// An agent that has enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The identity of the agent.
    pub identity: AgentIdentity,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// The root certificate that the agent trusts.
    pub root: CertificateDer<'static>,
    /// Start of the certificate's lifetime, seconds since 1970.
    pub not_before: u64,
    /// End of the certificate's lifetime, seconds since 1970.
    pub not_after: u64,
}

impl Enrolled {
    /// Checks a certificate for `key` against its root.
    fn judge(
        certificate: CertificateDer<'static>,
        root: CertificateDer<'static>,
        key: &AgentKey,
        now: u64,
    ) -> Result<Self, Flaw> {
        let facts = facts(&certificate).ok_or(Flaw::NotOfAgent)?;
        let identity = facts.uri.as_deref().and_then(|uri| AgentIdentity::from_uri(uri).ok());
        let identity = identity.ok_or(Flaw::NotOfAgent)?;
        if facts.key != key.fingerprint() {
            return Err(Flaw::OtherKey);
        }
        let (not_before, not_after) = (facts.not_before, facts.not_after);
        check_validity(not_before, not_after, now)?;
        if !is_signed(&certificate, &root, now) {
            return Err(Flaw::Untrusted);
        }
        Ok(Self { identity, certificate, root, not_before, not_after })
    }

    /// Whether the certificate should be renewed now.
    pub fn renewal_due(&self, now: u64) -> bool {
        renewal_due(self.not_before, self.not_after, now)
    }
}

/// Whether a server that trusts this root accepts the certificate.
fn is_signed(certificate: &CertificateDer<'_>, root: &CertificateDer<'_>, now: u64) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(root.clone()).is_err() {
        return false;
    }
    let provider = ring::default_provider().into();
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build() else {
        return false;
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    verifier.verify_client_cert(certificate, &[], now).is_ok()
}

/// The folder of one agent.
#[derive(Clone, Debug)]
pub struct AgentFolder(PathBuf);

impl AgentFolder {
    /// Opens a folder, or makes it.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        files::folder(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Returns the key of the agent, which is generated on first use.
    pub fn key(&self) -> Result<AgentKey, AgentError> {
        let path = self.0.join(KEY);
        if let Some(bytes) = files::read(&path, files::PEM)? {
            let private = PrivateKeyDer::from_pem_slice(&bytes).ok();
            let pair = private.and_then(|private| KeyPair::try_from(&private).ok());
            return pair.map(AgentKey).ok_or(AgentError::Key(path));
        }
        let pair = KeyPair::generate().map_err(AgentError::Make)?;
        files::write(&path, pair.serialize_pem().as_bytes())?;
        Ok(AgentKey(pair))
    }

    /// Returns the identity of the agent. `None` if it has not enrolled. `now` is in seconds since 1970.
    pub fn enrolled(&self, key: &AgentKey, now: u64) -> Result<Option<Enrolled>, AgentError> {
        let path = self.0.join(CERTIFICATE);
        let Some(bytes) = files::read(&path, files::PEM)? else { return Ok(None) };
        let mut certificates = CertificateDer::pem_slice_iter(&bytes);
        let judged = match (certificates.next(), certificates.next()) {
            (Some(Ok(certificate)), Some(Ok(root))) => Enrolled::judge(certificate, root, key, now),
            _ => Err(Flaw::NotOfAgent),
        };
        judged.map(Some).map_err(|flaw| AgentError::Kept { path, flaw })
    }

    /// Stores the certificate that the server issued for `key`, replacing an earlier one. An unusable certificate
    /// changes nothing.
    pub fn keep(
        &self,
        key: &AgentKey,
        certificate: CertificateDer<'static>,
        root: CertificateDer<'static>,
        now: u64,
    ) -> Result<Enrolled, AgentError> {
        let enrolled = Enrolled::judge(certificate, root, key, now).map_err(|flaw| AgentError::Issued { flaw })?;
        let text = pem(&enrolled.certificate) + &pem(&enrolled.root);
        files::write(&self.0.join(CERTIFICATE), text.as_bytes())?;
        Ok(enrolled)
    }
}
