//! The certificate that API servers see at the webhook and the metrics API: the operator's own, or one that the user or
//! cert-manager keeps in a Secret. A changed Secret takes effect without a restart.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use operator_core::{
    desired::{
        ca::Trusted,
        serving::{Facts, Flaw, Handover, Offer, flaw},
    },
    hash::hash,
    schedule::upkeep::{Checked, Rounds},
};
use rustls::{
    CertificateError,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use tokio::{sync::watch, time::sleep};
use x509_parser::extensions::GeneralName;

use crate::platform::{
    deadline::RequestError,
    liveness::Heartbeat,
    metrics::{Metrics, count},
    pki::Leaf,
};

/// Interval between two reads of the Secret.
const LOOK: Duration = Duration::from_secs(5);
/// First pause after a read that failed.
const SOON: Duration = Duration::from_secs(1);

/// The serving certificate, and the CA certificates to trust.
#[derive(Clone)]
pub struct Serving {
    /// The certificate for new handshakes.
    pub leaf: Arc<Leaf>,
    /// The CA certificates that API servers should trust.
    pub trusted: watch::Receiver<Trusted>,
}

/// Why the Secret cannot be used. A certificate that API servers accept stays in use until the Secret has another one
/// that they accept.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error("cannot read Secret {name}, which should hold the certificate of the webhook and the metrics API")]
    Secret {
        name: String,
        #[source]
        source: RequestError,
    },
    #[error(
        "Secret {0} does not exist, so API servers can reach neither the webhook nor the metrics API: create the \
         Secret, or check the cert-manager Certificate that should create it"
    )]
    Missing(String),
    #[error("Secret {name} holds no usable certificate ({why}): it needs tls.crt and tls.key, both PEM")]
    Unusable { name: String, why: String },
    #[error("the certificate in Secret {name} {flaw}")]
    Flawed { name: String, flaw: Flaw },
}

impl ServingError {
    /// The value of the label `result`.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Secret { .. } => "failed",
            Self::Missing(_) => "missing",
            Self::Unusable { .. } => "unusable",
            Self::Flawed { flaw, .. } => flaw.as_str(),
        }
    }
}

/// Follows the Secret with the certificate.
pub struct Keeper {
    api: Api<Secret>,
    name: String,
    /// Names that API servers call.
    hosts: Vec<String>,
    handover: Handover<Arc<CertifiedKey>>,
    /// Hash of the certificate in `leaf`.
    shown: Option<u64>,
    leaf: Arc<Leaf>,
    trusted: watch::Sender<Trusted>,
    metrics: Arc<Metrics>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Keeper {
    /// Follows the Secret of this name, whose certificate should be valid for these hosts.
    #[must_use]
    pub fn new(api: Api<Secret>, name: &str, hosts: Vec<String>, metrics: Arc<Metrics>) -> (Self, Serving) {
        let (leaf, (trusted, receiver)) = (Arc::new(Leaf::default()), watch::channel(Trusted::default()));
        let (name, handover) = (name.to_owned(), Handover::default());
        let serving = Serving { leaf: leaf.clone(), trusted: receiver };
        (Self { api, name, hosts, handover, shown: None, leaf, trusted, metrics }, serving)
    }

    /// Keeps the certificate current until the process ends.
    pub async fn keep(mut self, heartbeat: Heartbeat) {
        let mut rounds = Rounds::new(LOOK, SOON, LOOK);
        loop {
            let read = Box::pin(self.read(&heartbeat)).await;
            self.show();
            let checked = match &read {
                Ok(()) => rounds.checked(Checked::Done),
                // The seconds since the expiry grow; the kind of the flaw stays the same.
                Err(ServingError::Flawed { flaw, .. }) => rounds.checked(Checked::Failed(flaw.as_str())),
                Err(error) => rounds.checked(Checked::Failed(&error.to_string())),
            };
            count(&self.metrics.serving_checks, "result", read.as_ref().err().map_or("good", ServingError::as_str));
            if let Err(error) = read
                && checked.is_news
            {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "API servers may refuse the webhook and the metrics API");
            }
            heartbeat.idle(sleep(checked.pause)).await;
        }
    }

    /// Reads the Secret and offers its certificate.
    async fn read(&mut self, heartbeat: &Heartbeat) -> Result<(), ServingError> {
        let name = || self.name.clone();
        let secret = heartbeat.answer(self.api.get_opt(&self.name)).await;
        let secret = secret.map_err(|source| ServingError::Secret { name: name(), source })?;
        let data = secret.ok_or_else(|| ServingError::Missing(name()))?.data.unwrap_or_default();
        let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0)).unwrap_or_default();
        let (chain, key, ca) = (text("tls.crt"), text("tls.key"), text("ca.crt"));
        let unusable = |why: String| ServingError::Unusable { name: name(), why };
        let certified = certified(&chain, &key).map_err(unusable)?;
        let facts = certified.cert.first().ok_or_else(|| "tls.crt is empty".to_owned()).and_then(facts);
        let facts = facts.map_err(unusable)?;
        let id = hash(&format!("{chain}\n{key}\n{ca}"));
        let flaw = flaw(&facts, &self.hosts, now()).or_else(|| untrusted(&certified, &ca, &self.hosts));
        let is_flawed = flaw.is_some();
        let flawed = flaw.map(|flaw| ServingError::Flawed { name: name(), flaw });
        let (bundle, key) = (ca.into_owned(), Arc::new(certified));
        self.handover.offer(Offer { id, bundle, end: facts.end, is_flawed, key }, now());
        flawed.map_or(Ok(()), Err)
    }

    /// Shows API servers the current certificate, and publishes the CA certificates.
    fn show(&mut self) {
        if let Some(offer) = self.handover.using(now()) {
            self.metrics.serving_end.set(i64::try_from(offer.end).unwrap_or(i64::MAX));
            if self.shown != Some(offer.id) {
                tracing::info!(secret = %self.name, end = offer.end, "serving the certificate of the Secret");
                self.shown = Some(offer.id);
                self.leaf.show(offer.key.clone());
            }
        }
        let bundle = self.handover.bundle(now());
        self.trusted.send_if_modified(|trusted| {
            let changed = trusted.bundle != bundle;
            trusted.bundle = bundle;
            changed
        });
    }
}

/// The certificate with its key, from PEM.
fn certified(chain: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt has no certificate".to_owned());
    }
    // The error may quote a part of the key.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "tls.key has no private key".to_owned())?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())
}

/// The fields of a certificate.
fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| format!("tls.crt: {error}"))?;
    let names = parsed.subject_alternative_name().map_err(|error| format!("tls.crt: {error}"))?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    });
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let validity = parsed.validity();
    let (begin, end) = (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
    Ok(Facts { names: names.collect(), begin, end })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Whether the CA certificates (PEM) did not sign the certificate. Without CA certificates this is unknown, and the API
/// server reports other problems.
fn untrusted(certified: &CertifiedKey, ca: &str, hosts: &[String]) -> Option<Flaw> {
    if ca.trim().is_empty() {
        return None;
    }
    let Ok(roots) = proxy_grpc::roots(ca) else { return Some(Flaw::Untrusted) };
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let (leaf, others) = certified.cert.split_first()?;
    let name = ServerName::try_from(hosts.first()?.as_str()).ok()?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now()));
    let refused = verifier.verify_server_cert(leaf, others, &name, &[], time).err()?;
    let is_unsigned = matches!(
        refused,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
    );
    is_unsigned.then_some(Flaw::Untrusted)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    const HOST: &str = "operator.portlane.svc";

    /// PEM of a CA certificate, and of a certificate that it signed with its key.
    fn made(name: &str) -> (String, String, String) {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().expect("a key");
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA certificate").pem();
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let certificate = parameters.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
        (ca_certificate, certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn names_and_dates_of_a_certificate_are_read() {
        let (_, chain, key) = made(HOST);
        let certified = certified(&chain, &key).expect("usable");
        let facts = facts(certified.cert.first().expect("a certificate")).expect("readable");
        assert_eq!(facts.names, [HOST, "127.0.0.1"]);
        assert!(facts.begin < now() && facts.end > now());
    }

    #[test]
    fn a_certificate_is_trusted_by_its_own_ca_only() {
        let ((ca, chain, key), (other, ..)) = (made(HOST), made(HOST));
        let certified = certified(&chain, &key).expect("usable");
        let hosts = [HOST.to_owned()];
        assert_eq!(untrusted(&certified, &ca, &hosts), None);
        assert_eq!(untrusted(&certified, &other, &hosts), Some(Flaw::Untrusted));
        assert_eq!(untrusted(&certified, "no PEM", &hosts), Some(Flaw::Untrusted));
        assert_eq!(untrusted(&certified, "", &hosts), None, "nobody knows");
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_no_message_quotes_the_key() {
        let ((_, chain, key), (_, _, other)) = (made(HOST), made(HOST));
        for (chain, key) in [("", &*key), (&*chain, ""), (&*chain, "secret"), (&*chain, &*other)] {
            let why = certified(chain, key).map(drop).expect_err("refused");
            assert!(!why.contains("secret") && !why.is_empty(), "{why}");
        }
    }
}
