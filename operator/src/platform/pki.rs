//! The operator's own CA, whose certificates live for years, and the serving certificate, which lives for a day.
//!
//! One Secret in the operator's namespace holds the CA certificates with their keys. Only the leader rotates the CA. A
//! successor is generated long before it signs, and streams distribute its certificate to every proxy in the meantime.
//! Every replica issues its own serving certificate in memory. New handshakes use a renewed certificate; open streams
//! continue.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use operator_core::{
    desired::ca::{self, Root, Roots, Trusted},
    schedule::upkeep::{Checked, Rounds},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};

use crate::platform::{
    deadline::RequestError,
    lease::Term,
    liveness::Heartbeat,
    metrics::{Metrics, count},
};

/// The tolerated lag of a proxy's clock.
const SKEW: Duration = Duration::from_secs(3600);
/// Longest interval between two checks of the CA and the serving certificate.
const LOOK: Duration = Duration::from_secs(60);
/// The interval while the serving certificate is missing, and the first pause after a check that failed.
const SOON: Duration = Duration::from_secs(1);
/// Longest pause after checks that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Why the CA or the serving certificate cannot be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The Secret cannot be read or written.
    #[error("cannot read or write Secret {name}, which holds the operator's CA")]
    Secret {
        /// Name of the Secret.
        name: String,
        /// Why the request failed.
        #[source]
        source: RequestError,
    },
    /// The content of the Secret does not parse.
    #[error("Secret {0} does not hold the CA of this operator; delete the Secret to have a new CA generated")]
    Content(String),
    /// A certificate cannot be generated.
    #[error("cannot generate a certificate")]
    Make(#[source] rcgen::Error),
    /// A generated certificate cannot be used.
    #[error("cannot use a generated certificate")]
    Use(#[source] rustls::Error),
}

/// The serving certificate, for new handshakes.
#[derive(Debug, Default)]
pub struct Leaf(ArcSwapOption<CertifiedKey>);

impl Leaf {
    /// Uses this certificate for new handshakes.
    pub fn show(&self, certificate: Arc<CertifiedKey>) {
        self.0.store(Some(certificate));
    }
}

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
    /// Lifetime of the serving certificate, seconds. The certificate is renewed at half its lifetime.
    life: u64,
    /// DNS names and IP addresses of the serving certificate.
    names: Vec<String>,
    /// CA certificate that signed the serving certificate, and the expiry of the latter, seconds since 1970.
    used: Option<(String, u64)>,
    trusted: watch::Sender<Trusted>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Authority {
    /// The CA in the Secret of this name, and the serving certificate for handshakes. The certificate is valid for the
    /// name that proxies expect and for `hosts`, the names that API servers call.
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

    /// Keeps the CA and the serving certificate current until the process ends.
    pub async fn keep(mut self, term: watch::Receiver<Term>, metrics: Arc<Metrics>, heartbeat: Heartbeat) {
        let mut rounds = Rounds::new(LOOK.min(Duration::from_secs(self.life) / 8), SOON, RETRY);
        loop {
            let leads = term.borrow().is_some();
            let pause = match Box::pin(self.refresh(leads, &heartbeat)).await {
                Ok(end) => {
                    metrics.certificate_end.set(end.and_then(|end| i64::try_from(end).ok()).unwrap_or(0));
                    rounds.checked(if end.is_some() { Checked::Done } else { Checked::Incomplete }).pause
                }
                Err(error) => {
                    count(&metrics.api_errors, "request", "certificates");
                    let next = rounds.checked(Checked::Failed(&error.to_string()));
                    if next.is_news {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(
                            %error,
                            cause,
                            "cannot refresh certificates: the current ones stay in use, will retry"
                        );
                    }
                    next.pause
                }
            };
            heartbeat.idle(sleep(pause)).await;
        }
    }

    /// Reads the CA, rotates it when due if this replica leads, and renews the serving certificate when due. If the
    /// Secret is missing, any replica creates it. Called at intervals. Returns the expiry of the serving certificate,
    /// seconds since 1970.
    ///
    /// # Errors
    /// See [`PkiError`]; the certificates in use stay in use.
    pub async fn refresh(&mut self, leads: bool, heartbeat: &Heartbeat) -> Result<Option<u64>, PkiError> {
        let (secret, kept) = self.read(heartbeat).await?;
        let kept = kept.unwrap_or_default();
        let has_expired = kept.has_expired(now());
        let (roots, changed) = kept.rotated(now(), || make_root(now()))?;
        if changed && (leads || secret.is_none()) {
            let is_missing = secret.is_none();
            if let Err(error) = self.write(secret, &roots, heartbeat).await {
                // The CA in the Secret keeps signing.
                let kept = self.read(heartbeat).await?.1.unwrap_or_default();
                self.take(&kept)?;
                return Err(error);
            }
            if is_missing {
                self.log_generated();
            } else if has_expired {
                self.log_expired();
            }
        } else if changed {
            // The leader rotates the CA; until then this replica uses the CA as it is.
            let kept = self.read(heartbeat).await?.1.unwrap_or_default();
            return self.take(&kept);
        }
        self.take(&roots)
    }

    /// Logs that a CA was generated because the Secret was missing. Proxies with a stream receive the new CA over the
    /// stream; other running proxies do not trust it.
    fn log_generated(&self) {
        if self.used.is_some() {
            tracing::warn!(
                secret = %self.name,
                "the Secret with the operator's CA was deleted, so the operator generated a new CA: proxies without a \
                 stream do not trust it until their pods are replaced (docs/security.md)"
            );
        } else {
            tracing::info!(secret = %self.name, "there was no Secret with the operator's CA: generated a CA");
        }
    }

    /// Logs that the CA expired while no operator ran, and was replaced.
    fn log_expired(&self) {
        tracing::warn!(
            secret = %self.name,
            "the operator's CA expired while no operator ran, so the operator generated a new CA: fleets are rolled \
             out, and sidecars do not trust the new CA until their pods are replaced (docs/security.md)"
        );
    }

    fn take(&mut self, roots: &Roots) -> Result<Option<u64>, PkiError> {
        let Some(root) = roots.signing(now()) else { return Ok(None) };
        let next = Trusted { bundle: roots.bundle(), signing: root.certificate.clone(), since: roots.since() };
        self.trusted.send_if_modified(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
        let lasts = |(signer, end): &(String, u64)| *signer == root.certificate && *end > now() + self.life / 2;
        if !self.used.as_ref().is_some_and(lasts) {
            let end = now() + self.life;
            self.leaf.show(Arc::new(make_leaf(root, end, &self.names)?));
            self.used = Some((root.certificate.clone(), end));
        }
        Ok(self.used.as_ref().map(|(_, end)| *end))
    }

    fn failed(&self, source: RequestError) -> PkiError {
        PkiError::Secret { name: self.name.clone(), source }
    }

    async fn read(&self, heartbeat: &Heartbeat) -> Result<(Option<Secret>, Option<Roots>), PkiError> {
        let secret = heartbeat.answer(self.api.get_opt(&self.name)).await.map_err(|error| self.failed(error))?;
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref()).and_then(|data| data.get("roots.json"));
        let roots = data.map(|data| serde_json::from_slice(&data.0)).transpose();
        Ok((secret, roots.map_err(|_| PkiError::Content(self.name.clone()))?))
    }

    async fn write(&self, secret: Option<Secret>, roots: &Roots, heartbeat: &Heartbeat) -> Result<(), PkiError> {
        let content = serde_json::to_vec(roots).map_err(|_| PkiError::Content(self.name.clone()))?;
        let exists = secret.is_some();
        let mut next = secret.unwrap_or_default();
        next.metadata.name = Some(self.name.clone());
        next.data = Some(BTreeMap::from([
            ("roots.json".to_owned(), ByteString(content)),
            ("ca.crt".to_owned(), ByteString(roots.bundle().into_bytes())),
        ]));
        // Of two concurrent writers, one gets a conflict and reads the Secret again next time.
        let parameters = PostParams::default();
        let written = if exists {
            heartbeat.answer(self.api.replace(&self.name, &parameters, &next)).await
        } else {
            heartbeat.answer(self.api.create(&parameters, &next)).await
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

/// The contents of a CA certificate, recomputed from its dates whenever it signs.
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
    use kube::{Client, Config};
    use tokio::net::TcpListener;

    use super::*;
    use crate::platform::liveness::Liveness;

    #[test]
    fn the_bundle_holds_every_ca_certificate_and_no_key_and_a_serving_certificate_signs_nothing() {
        let (ours, other) = (make_root(now()).expect("CA"), make_root(now()).expect("CA"));
        let end = now() + 60;
        let leaf = make_leaf(&ours, end, &["example.svc".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
        let leaf = leaf.cert.first().expect("a certificate");
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).expect("a certificate");
        let usage = leaf.extended_key_usage().expect("readable").expect("a usage").value;
        assert!(!leaf.is_ca() && usage.server_auth && !usage.client_auth && !usage.any);
        assert_eq!(u64::try_from(leaf.validity().not_after.timestamp()), Ok(end));
        let bundle = Roots { roots: vec![ours, other] }.bundle();
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!bundle.contains("PRIVATE"), "the bundle holds no private key");
        proxy_grpc::client_config(&bundle).expect("usable");
    }

    // C4
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_no_hang_of_the_upkeep() {
        // The kernel completes connections to a listener that never accepts them.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = Config::new(format!("http://{address}").parse().expect("an address"));
        config.root_cert = Some(Vec::new());
        let api = Api::namespaced(Client::try_from(config).expect("a client"), "portlane");
        let trusted = watch::channel(Trusted::default()).0;
        let (authority, _leaf) = Authority::new(api, "roots", &[], Duration::from_secs(86_400), trusted);
        let (liveness, metrics) = (Liveness::default(), Arc::<Metrics>::default());
        let (_sender, term) = watch::channel(Term::default());
        let heartbeat = liveness.heartbeat("the upkeep of the CA");
        let looks = async {
            for _ in 0..200 {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(liveness.complaint(), None);
            }
        };
        tokio::select! {
            () = authority.keep(term, metrics, heartbeat) => unreachable!("it runs on"),
            () = looks => {}
        }
    }
}
