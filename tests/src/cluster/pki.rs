//! Fresh keys and certificates: one CA, one certificate for each component.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use super::ClusterError;

/// The subject of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Name of the files.
    pub(super) file: &'static str,
    /// User name for Kubernetes.
    pub(super) user: String,
    /// Group for Kubernetes.
    pub(super) group: &'static str,
    /// Addresses and names of the server; empty for a client.
    pub(super) serves: Vec<String>,
}

impl Identity {
    /// A client.
    pub(super) fn client(file: &'static str, user: &str, group: &'static str) -> Self {
        Self { file, user: user.to_owned(), group, serves: Vec::new() }
    }
}

/// Writes `ca.crt`, `ca.key`, `sa.key`, `sa.pub` and `FILE.crt`, `FILE.key` of every identity.
pub(super) fn write(folder: &Path, identities: &[Identity]) -> Result<(), ClusterError> {
    let put = |name: &str, content: String| {
        let path = folder.join(name);
        fs::write(&path, content).map_err(ClusterError::io(format!("cannot write {}", path.display())))
    };
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "portlane test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    put("ca.crt", authority.pem())?;
    put("ca.key", authority.key().serialize_pem())?;
    let accounts = KeyPair::generate()?;
    put("sa.key", accounts.serialize_pem())?;
    put("sa.pub", accounts.public_key_pem())?;
    for identity in identities {
        let mut certificate = CertificateParams::new(identity.serves.clone())?;
        certificate.distinguished_name.push(DnType::CommonName, &identity.user);
        certificate.distinguished_name.push(DnType::OrganizationName, identity.group);
        certificate.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        put(&format!("{}.crt", identity.file), certificate.signed_by(&key, &authority)?.pem())?;
        put(&format!("{}.key", identity.file), key.serialize_pem())?;
    }
    Ok(())
}
