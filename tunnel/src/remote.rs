//! The serving certificates of an endpoint in a cluster, or of a sidecar, which the operator signs.
//!
//! ```text
//! agent ─ ENROL ─▶ endpoint ─ token or identity ─▶ operator
//!                  endpoint ─ own request ───────▶ operator     at the start, and after half of its certificate's lifetime
//!                  sidecar ── own request ───────▶ operator     the same; it enrols nobody
//! ```

use std::cell::RefCell;
use std::fmt;
use std::future::ready;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use proxy_api::{Applicant as Asking, Issued, SignOutcome, SignReason, with_causes};
use rustls::pki_types::CertificateDer;
use rustls::time_provider::TimeProvider;
use thiserror::Error;
use tokio::time::sleep;
use tunnel_core::enrolment::{EnrolReason, EnrolRefusal};
use tunnel_core::identity::EndpointId;

use crate::clock::seconds;
use crate::enrol::{Applicant, Signer};
use crate::identity::authority::SKEW;
use crate::identity::endpoint::{EndpointError, EndpointFolder, EndpointKey, Holder, Leaf};
use crate::secure::ServerTls;

#[cfg(test)]
mod tests;

/// Pause after a failure to get a serving certificate, in seconds.
const PAUSE: u64 = 10;
/// How often to check the clock, which may jump.
const LOOK: Duration = Duration::from_secs(1);

/// The refusal if the operator does not answer.
const UNANSWERED: &str = "the operator, which signs certificates, does not answer: try again later";
/// The refusal if the operator's answer cannot be read.
const UNREADABLE: &str =
    "the answer of the operator cannot be read: check that the operator and this gateway run compatible versions";

/// The connection to the operator.
pub trait Operator: 'static {
    /// Asks for a certificate for a request, base64 of DER. `None`: there was no answer in time.
    fn ask(&self, applicant: Asking, request: String) -> impl Future<Output = Option<SignOutcome>>;
}

/// Why an endpoint has no new serving certificate.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The endpoint's files cannot be used, or the issued certificate cannot.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The operator refuses, or does not answer.
    #[error("{0}")]
    Refused(EnrolRefusal),
}

/// Has the operator sign the certificates of agents.
pub struct RemoteSigner<O>(O);

impl<O> fmt::Debug for RemoteSigner<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSigner").finish_non_exhaustive()
    }
}

impl<O: Operator> RemoteSigner<O> {
    /// The certificate, and the root that signed it.
    async fn ask(&self, applicant: Asking, request: &[u8]) -> Result<[CertificateDer<'static>; 2], EnrolRefusal> {
        match self.0.ask(applicant, BASE64.encode(request)).await {
            Some(SignOutcome::Issued(Issued { certificate, root })) => {
                let read = |text: String| BASE64.decode(text.as_bytes()).map(CertificateDer::from);
                match (read(certificate), read(root)) {
                    (Ok(certificate), Ok(root)) => Ok([certificate, root]),
                    _ => Err(unavailable(UNREADABLE)),
                }
            }
            Some(SignOutcome::Refused { refused }) => {
                Err(EnrolRefusal { reason: reason(refused.reason), detail: refused.detail })
            }
            None => Err(unavailable(UNANSWERED)),
        }
    }
}

impl<O: Operator> Signer for RemoteSigner<O> {
    async fn sign(&self, applicant: &Applicant, request: &[u8]) -> Result<CertificateDer<'static>, EnrolRefusal> {
        let [certificate, _] = self.ask(asking(applicant), request).await?;
        Ok(certificate)
    }
}

fn asking(applicant: &Applicant) -> Asking {
    match applicant {
        Applicant::Token { agent, token } => Asking::Token {
            namespace: agent.namespace().to_owned(),
            name: agent.name().to_owned(),
            token: token.to_text(),
        },
        Applicant::Agent(identity) => Asking::Agent {
            namespace: identity.agent().namespace().to_owned(),
            name: identity.agent().name().to_owned(),
            uid: identity.uid().to_owned(),
            rotation: identity.rotation(),
        },
    }
}

fn reason(reason: SignReason) -> EnrolReason {
    match reason {
        SignReason::Token => EnrolReason::Token,
        SignReason::Agent => EnrolReason::Agent,
        SignReason::Request => EnrolReason::Request,
        SignReason::Unavailable => EnrolReason::Unavailable,
        SignReason::Unknown => EnrolReason::Other,
    }
}

fn unavailable(detail: &str) -> EnrolRefusal {
    EnrolRefusal { reason: EnrolReason::Unavailable, detail: detail.to_owned() }
}

/// A signer that signs nothing: agents enrol and renew their certificates at the endpoints of their server.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Signer for Nobody {
    fn sign(&self, _: &Applicant, _: &[u8]) -> impl Future<Output = Result<CertificateDer<'static>, EnrolRefusal>> {
        let detail = "a sidecar gives no certificates: dial the addresses of the join string".to_owned();
        ready(Err(EnrolRefusal { reason: EnrolReason::Other, detail }))
    }
}

/// The serving certificate of one endpoint, and the signer of its agents' certificates. It stays on one thread.
#[derive(Debug)]
pub struct Remote<O, S = RemoteSigner<O>> {
    holder: Holder,
    /// How the endpoint asks for its own certificate.
    asking: Asking,
    folder: EndpointFolder,
    operator: Rc<RemoteSigner<O>>,
    tls: ServerTls<S>,
    clock: Arc<dyn TimeProvider>,
    /// The id in the certificate in use.
    id: RefCell<Option<EndpointId>>,
}

impl<O: Operator> Remote<O> {
    /// Opens a folder for the endpoint of this id. No other process may use the folder. If it has a valid serving
    /// certificate, the endpoint accepts connections at once.
    pub fn open(
        folder: &Path,
        id: EndpointId,
        clock: Arc<dyn TimeProvider>,
        operator: O,
    ) -> Result<Self, EndpointError> {
        let folder = EndpointFolder::open(folder)?;
        let operator = Rc::new(RemoteSigner(operator));
        let tls = ServerTls::without_certificate(operator.clone());
        let (holder, asking, id) = (Holder::Endpoint(id), Asking::Endpoint, RefCell::default());
        Ok(Self { holder, asking, folder, operator, tls, clock, id }.with_kept())
    }
}

impl<O: Operator> Remote<O, Nobody> {
    /// Like [`Remote::open`], for a sidecar. The gateway of this uid hands connections over to it. The operator assigns
    /// its id.
    pub fn open_sidecar(
        folder: &Path,
        gateway: String,
        clock: Arc<dyn TimeProvider>,
        operator: O,
    ) -> Result<Self, EndpointError> {
        let folder = EndpointFolder::open(folder)?;
        let operator = Rc::new(RemoteSigner(operator));
        let tls = ServerTls::without_certificate(Rc::new(Nobody));
        let (holder, asking, id) = (Holder::Sidecar, Asking::Sidecar { gateway }, RefCell::default());
        Ok(Self { holder, asking, folder, operator, tls, clock, id }.with_kept())
    }
}

impl<O: Operator, S> Remote<O, S> {
    fn with_kept(self) -> Self {
        if let Err(error) = self.use_kept() {
            // The next certificate replaces it.
            tracing::warn!(error = with_causes(&error), "cannot use the stored certificate");
        }
        self
    }

    /// TLS of the port that agents dial.
    pub fn tls(&self) -> ServerTls<S> {
        self.tls.clone()
    }

    /// The id in the certificate in use. Absent before there is one.
    pub fn id(&self) -> Option<EndpointId> {
        self.id.borrow().clone()
    }

    /// Keeps a valid serving certificate, for ever. `tell` receives the result of each attempt to get one.
    pub async fn run(&self, mut tell: impl FnMut(Result<(), &RemoteError>)) {
        loop {
            // If the clock is set back beyond this time, the certificate is not valid yet, and the pause ends.
            let begin = self.now().saturating_sub(SKEW.as_secs());
            let renewed = self.renew().await;
            tell(renewed.as_ref().map(|_| ()));
            let due = renewed.unwrap_or_else(|_| self.now().saturating_add(PAUSE));
            while (begin..due).contains(&self.now()) {
                sleep(LOOK).await;
            }
        }
    }

    fn now(&self) -> u64 {
        seconds(&*self.clock)
    }

    fn use_kept(&self) -> Result<(), EndpointError> {
        match self.folder.leaf(&self.holder, self.now())? {
            Some(leaf) => self.present(&leaf),
            None => Ok(()),
        }
    }

    fn present(&self, leaf: &Leaf) -> Result<(), EndpointError> {
        self.tls.replace(Arc::new(leaf.config(self.clock.clone())?));
        self.id.replace(Some(leaf.id.clone()));
        Ok(())
    }

    /// Gets a serving certificate for a new key, and stores it. Returns when the next one is due, in seconds since
    /// 1970. A certificate that cannot be stored is used nevertheless.
    async fn renew(&self) -> Result<u64, RemoteError> {
        let key = EndpointKey::generate()?;
        let signed = self.operator.ask(self.asking.clone(), &key.request()?).await;
        let [certificate, root] = signed.map_err(RemoteError::Refused)?;
        let leaf = Leaf::new(&self.holder, key, certificate, root, self.now())?;
        self.present(&leaf)?;
        self.folder.keep(&leaf)?;
        let half = leaf.not_before.saturating_add(leaf.not_after.saturating_sub(leaf.not_before) / 2);
        // The certificate of a root that ends soon is short-lived.
        Ok(half.max(self.now().saturating_add(PAUSE)))
    }
}
