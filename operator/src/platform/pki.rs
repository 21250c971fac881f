//! The operator's own CA: roots that live for years, leaves that live for a day.
//!
//! Roots stand in one Secret of the operator's namespace, which only the leader writes. A successor is made long before it
//! signs, and goes to every proxy over its stream; only when it has been known for a while does it sign. Leaves are made
//! in memory by every replica and changed under new handshakes; streams that stand go on.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use operator_core::desired::ca::{self, Root, Roots, Trusted};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tokio::sync::watch;

/// Clocks of proxies may be behind by so much.
const SKEW: Duration = Duration::from_secs(3600);

/// Certificates that cannot be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The Secret cannot be read or written.
    #[error("Secret {name} with the operator's roots cannot be read or written")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Its content is not what was written.
    #[error("Secret {0} does not hold roots of this operator; delete it to have new ones made")]
    Content(String),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// A certificate cannot be used.
    #[error("a certificate cannot be used")]
    Use(#[source] rustls::Error),
}

/// The certificate that handshakes get now.
#[derive(Debug, Default)]
pub struct Leaf(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// The CA of one installation.
pub struct Authority {
    api: Api<Secret>,
    name: String,
    leaf: Arc<Leaf>,
    /// Life of a leaf, seconds; it is changed at half of it.
    life: u64,
    /// Names that the leaf is for.
    names: Vec<String>,
    /// Root that signed the leaf in use, and when that ends.
    used: Option<(String, u64)>,
    trusted: watch::Sender<Trusted>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Authority {
    /// The CA whose roots stand in this Secret, for leaves with the name that proxies know and those under which API servers
    /// call. Also what handshakes are answered with.
    #[must_use]
    pub fn new(
        api: Api<Secret>,
        name: &str,
        hosts: &[String],
        life: Duration,
        trusted: watch::Sender<Trusted>,
    ) -> (Self, Arc<Leaf>) {
        let leaf = Arc::new(Leaf::default());
        let names = [&[proxy_grpc::SERVER_NAME.to_owned()], hosts].concat();
        let (name, life) = (name.to_owned(), life.as_secs());
        (Self { api, name, leaf: leaf.clone(), life, names, used: None, trusted }, leaf)
    }

    /// Reads the roots, has the leader rotate them when it is time, and has a leaf that lasts. To be called again and again.
    /// Gives when the leaf in use ends, seconds since 1970.
    ///
    /// # Errors
    /// See [`PkiError`]; what was in use stays so.
    pub async fn refresh(&mut self, leads: bool) -> Result<Option<u64>, PkiError> {
        let (secret, kept) = self.read().await?;
        let (roots, changed) = kept.unwrap_or_default().rotated(now(), || make_root(now()))?;
        if changed && (leads || secret.is_none()) {
            if let Err(error) = self.write(secret, &roots).await {
                // What is there goes on signing.
                let kept = self.read().await?.1.unwrap_or_default();
                self.take(&kept)?;
                return Err(error);
            }
        } else if changed {
            // The leader will; until then the roots as they are.
            let kept = self.read().await?.1.unwrap_or_default();
            return self.take(&kept);
        }
        self.take(&roots)
    }

    fn take(&mut self, roots: &Roots) -> Result<Option<u64>, PkiError> {
        let Some(root) = roots.signing(now()) else { return Ok(None) };
        let next = Trusted { bundle: roots.bundle(), signing: root.certificate.clone() };
        self.trusted.send_if_modified(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
        let lasts = |(signer, end): &(String, u64)| *signer == root.certificate && *end > now() + self.life / 2;
        if !self.used.as_ref().is_some_and(lasts) {
            let end = now() + self.life;
            self.leaf.0.store(Some(Arc::new(make_leaf(root, end, &self.names)?)));
            self.used = Some((root.certificate.clone(), end));
        }
        Ok(self.used.as_ref().map(|(_, end)| *end))
    }

    fn failed(&self, source: kube::Error) -> PkiError {
        PkiError::Secret { name: self.name.clone(), source: Box::new(source) }
    }

    async fn read(&self) -> Result<(Option<Secret>, Option<Roots>), PkiError> {
        let secret = self.api.get_opt(&self.name).await.map_err(|error| self.failed(error))?;
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("roots.json"));
        let roots = data.map(|data| serde_json::from_slice(&data.0)).transpose();
        Ok((secret, roots.map_err(|_| PkiError::Content(self.name.clone()))?))
    }

    async fn write(&self, secret: Option<Secret>, roots: &Roots) -> Result<(), PkiError> {
        let content = serde_json::to_vec(roots).map_err(|_| PkiError::Content(self.name.clone()))?;
        let there = secret.is_some();
        let mut next = secret.unwrap_or_default();
        next.metadata.name = Some(self.name.clone());
        next.data = Some(BTreeMap::from([
            ("roots.json".to_owned(), ByteString(content)),
            ("ca.crt".to_owned(), ByteString(roots.bundle().into_bytes())),
        ]));
        // Of two that write at once, one finds the other's version: it reads again next time.
        let parameters = PostParams::default();
        let written = if there {
            self.api.replace(&self.name, &parameters, &next).await
        } else {
            self.api.create(&parameters, &next).await
        };
        written.map(drop).map_err(|error| self.failed(error))
    }
}

fn date(seconds: u64) -> OffsetDateTime {
    i64::try_from(seconds)
        .ok()
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// All that a root says; made anew from its dates whenever it signs.
fn root_parameters(made: u64, end: u64) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, format!("portlane {made}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = date(made.saturating_sub(SKEW.as_secs()));
    parameters.not_after = date(end);
    parameters
}

fn make_root(now: u64) -> Result<Root, PkiError> {
    let key = KeyPair::generate().map_err(PkiError::Make)?;
    let end = now + ca::LIFE;
    let certificate = root_parameters(now, end).self_signed(&key).map_err(PkiError::Make)?;
    Ok(Root { made: now, end, certificate: certificate.pem(), key: key.serialize_pem() })
}

fn make_leaf(root: &Root, end: u64, names: &[String]) -> Result<CertifiedKey, PkiError> {
    let signer = KeyPair::from_pem(&root.key).map_err(PkiError::Make)?;
    let issuer = Issuer::new(root_parameters(root.made, root.end), signer);
    let key = KeyPair::generate().map_err(PkiError::Make)?;
    let mut parameters = CertificateParams::new(names).map_err(PkiError::Make)?;
    parameters.distinguished_name.push(DnType::CommonName, proxy_grpc::SERVER_NAME);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.not_before = date(now().saturating_sub(SKEW.as_secs()));
    parameters.not_after = date(end);
    let certificate = parameters.signed_by(&key, &issuer).map_err(PkiError::Make)?;
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes());
    let private = private.map_err(|error| PkiError::Use(rustls::Error::General(error.to_string())))?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider()).map_err(PkiError::Use)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_trusted_by_the_bundle_and_by_no_other_root() {
        let (ours, other) = (make_root(now()).expect("root"), make_root(now()).expect("root"));
        make_leaf(&ours, now() + 60, &["example.svc".to_owned(), "127.0.0.1".to_owned()]).expect("leaf");
        let bundle = Roots { roots: vec![ours, other] }.bundle();
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!bundle.contains("PRIVATE"), "no key leaves the Secret");
        proxy_grpc::client_config(&bundle).expect("usable");
    }
}
