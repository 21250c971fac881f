//! An endpoint whose operator and clock the test plays.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use proxy_api::SignRefusal;
use rustls::pki_types::UnixTime;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tunnel_core::identity::{AgentIdentity, AgentName};
use tunnel_core::join::{JoinString, Token};

use super::*;
use crate::endpoint::Authenticator;
use crate::enrol::{Way, enrol};
use crate::identity::agent::AgentFolder;
use crate::identity::authority::{Authority, Request};

const NOW: u64 = 1_800_000_000;
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const GATEWAY: &str = "uid-edge";

#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn later(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn earlier(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// An operator that signs everything, or is unreachable.
#[derive(Debug)]
struct Signs {
    authority: Authority,
    clock: Arc<Clock>,
    is_away: Cell<bool>,
    asked: RefCell<Vec<Asking>>,
}

impl Operator for Rc<Signs> {
    async fn ask(&self, applicant: Asking, request: String) -> Option<SignOutcome> {
        self.asked.borrow_mut().push(applicant.clone());
        if self.is_away.get() {
            return None;
        }
        let now = seconds(&*self.clock);
        let request = Request::parse(&BASE64.decode(request.as_bytes()).ok()?).ok()?;
        let signed = match applicant {
            Asking::Endpoint => self.authority.sign_endpoint(&request, &id(), LIFETIME, now),
            Asking::Sidecar { gateway } if gateway == GATEWAY => {
                self.authority.sign_sidecar(&request, &id(), LIFETIME, now)
            }
            _ => self.authority.sign(&request, &identity(), LIFETIME, now),
        };
        let (certificate, root) = (BASE64.encode(&signed.ok()?), BASE64.encode(self.authority.root()));
        Some(SignOutcome::Issued(Issued { certificate, root }))
    }
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn id() -> EndpointId {
    EndpointId::new("0f3a").expect("an id")
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn identity() -> AgentIdentity {
    AgentIdentity::new(AgentName::new("infra", "home").expect("a name"), "u-1", 0).expect("an identity")
}

struct Bed {
    folder: TempDir,
    clock: Arc<Clock>,
    operator: Rc<Signs>,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(Clock(AtomicU64::new(NOW)));
        let pem = Authority::generate(NOW).expect("a root");
        let authority = Authority::parse(pem.as_bytes()).expect("a root");
        let (is_away, asked) = (Cell::new(false), RefCell::default());
        let operator = Rc::new(Signs { authority, clock: clock.clone(), is_away, asked });
        Self { folder, clock, operator }
    }

    fn open(&self) -> Remote<Rc<Signs>> {
        self.open_as(id())
    }

    fn open_sidecar(&self, gateway: &str) -> Remote<Rc<Signs>, Nobody> {
        let folder = self.folder.path().join(gateway);
        let operator = self.operator.clone();
        Remote::open_sidecar(&folder, gateway.to_owned(), self.clock.clone(), operator).expect("a folder")
    }

    fn open_as(&self, id: EndpointId) -> Remote<Rc<Signs>> {
        let folder = self.folder.path().join("tunnels");
        Remote::open(&folder, id, self.clock.clone(), self.operator.clone()).expect("a folder that can be used")
    }
}

#[tokio::test]
async fn an_agent_enrols_at_an_endpoint_whose_operator_signs_both() {
    let bed = Bed::new();
    let remote = bed.open();
    remote.renew().await.expect("a leaf");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address").to_string().parse().expect("an address");
    let token = Token::new([7; 32]);
    let (root, agent) = (bed.operator.authority.fingerprint(), identity().agent().clone());
    let join = JoinString::new(vec![address], root, agent, NOW + 3600, token.clone()).expect("a join string");
    let home = tempfile::tempdir().expect("a folder");
    let folder = AgentFolder::open(&home.path().join("agent")).expect("made");
    let way = Way { proxy: None, within: Duration::from_secs(20), clock: bed.clock.clone() };
    let serve = async {
        let (tcp, _) = port.accept().await.expect("a connection");
        remote.tls().authenticate(tcp).await
    };
    let text = join.encode();
    let (enrolled, served) = tokio::join!(enrol(&text, &folder, &way), serve);
    assert_eq!(enrolled.expect("a certificate").identity, identity());
    assert!(served.expect("answered").is_none());
    let (namespace, name) = ("infra".to_owned(), "home".to_owned());
    let expected = [Asking::Endpoint, Asking::Token { namespace, name, token: token.to_text() }];
    assert_eq!(*bed.operator.asked.borrow(), expected);
}

#[tokio::test]
async fn a_leaf_is_kept_for_a_restart_without_the_operator_as_long_as_it_counts() {
    let bed = Bed::new();
    let remote = bed.open();
    assert!(!remote.tls().has_certificate());
    remote.renew().await.expect("a leaf");
    assert!(remote.tls().has_certificate());
    let file = bed.folder.path().join("tunnels/endpoint.pem");
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bed.operator.is_away.set(true);
    assert!(bed.open().tls().has_certificate());
    let other = EndpointId::new("other").expect("an id");
    assert!(!bed.open_as(other).tls().has_certificate(), "that of another pod");
    bed.clock.later(LIFETIME.as_secs() + 1);
    assert!(!bed.open().tls().has_certificate(), "an expired one");
    bed.operator.is_away.set(false);
    std::fs::write(&file, "damaged").expect("written");
    let remote = bed.open();
    remote.renew().await.expect("a leaf in place of the damaged one");
    assert!(bed.open().tls().has_certificate());
}

#[tokio::test]
async fn a_sidecar_learns_its_id_from_its_leaf_and_takes_none_of_another_kind() {
    let bed = Bed::new();
    let remote = bed.open_sidecar(GATEWAY);
    assert_eq!((remote.id(), remote.tls().has_certificate()), (None, false));
    remote.renew().await.expect("a leaf");
    assert_eq!((remote.id(), remote.tls().has_certificate()), (Some(id()), true));
    assert_eq!(*bed.operator.asked.borrow(), [Asking::Sidecar { gateway: GATEWAY.to_owned() }]);
    bed.operator.is_away.set(true);
    assert_eq!(bed.open_sidecar(GATEWAY).id(), Some(id()), "kept for a restart");
    bed.operator.is_away.set(false);
    // The operator of this test answers with the certificate of an agent.
    let other = bed.open_sidecar("uid-other");
    let error = other.renew().await.expect_err("refused");
    assert!(matches!(error, RemoteError::Endpoint(EndpointError::NoSidecar)), "{error}");
    assert_eq!((other.id(), other.tls().has_certificate()), (None, false));
    std::fs::rename(bed.folder.path().join(GATEWAY), bed.folder.path().join("tunnels")).expect("renamed");
    assert!(!bed.open().tls().has_certificate(), "no endpoint of the server has the leaf of a sidecar");
}

#[tokio::test]
async fn a_sidecar_gives_agents_no_certificates() {
    let refused = Nobody.sign(&Applicant::Agent(identity()), b"request").await.expect_err("refused");
    assert!(refused.detail.contains("a sidecar gives no certificates"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_leaf_is_replaced_after_half_of_its_lifetime_and_asked_for_again_after_a_failure() {
    let bed = Bed::new();
    bed.operator.is_away.set(true);
    let (remote, told) = (bed.open(), Rc::new(RefCell::new(Vec::new())));
    let telling = told.clone();
    let test = async {
        spawn_local(async move {
            remote.run(|renewed| telling.borrow_mut().push(renewed.map_err(ToString::to_string))).await;
        });
        sleep(2 * LOOK).await;
        assert_eq!(*told.borrow(), [Err::<(), _>(UNANSWERED.to_owned())]);
        bed.operator.is_away.set(false);
        bed.clock.later(PAUSE - 1);
        sleep(2 * LOOK).await;
        assert_eq!(told.borrow().len(), 1);
        bed.clock.later(1);
        sleep(2 * LOOK).await;
        assert_eq!(told.borrow()[1..], [Ok::<_, String>(())]);
        bed.clock.later(LIFETIME.saturating_sub(SKEW).as_secs() / 2 - 1);
        sleep(2 * LOOK).await;
        assert_eq!(told.borrow().len(), 2);
        bed.clock.later(1);
        sleep(2 * LOOK).await;
        assert_eq!(told.borrow()[2..], [Ok::<_, String>(())]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_and_is_set_right_delays_no_leaf() {
    let bed = Bed::new();
    let month = 30 * 24 * 3600;
    bed.clock.later(2 * month);
    bed.operator.is_away.set(true);
    let (remote, told) = (bed.open(), Rc::new(RefCell::new(Vec::new())));
    let telling = told.clone();
    let test = async {
        spawn_local(async move {
            remote.run(|renewed| telling.borrow_mut().push(renewed.is_ok())).await;
        });
        sleep(2 * LOOK).await;
        assert_eq!(*told.borrow(), [false]);
        bed.operator.is_away.set(false);
        bed.clock.earlier(month);
        sleep(2 * LOOK).await;
        assert_eq!(*told.borrow(), [false, true], "the pause after a failure was of that clock");
        bed.clock.earlier(SKEW.as_secs());
        sleep(2 * LOOK).await;
        assert_eq!(told.borrow().len(), 2, "the leaf counts still");
        bed.clock.earlier(1);
        sleep(2 * LOOK).await;
        assert_eq!(*told.borrow(), [false, true, true], "the leaf would not count yet");
    };
    LocalSet::new().run_until(test).await;
}

/// An operator that gives one answer.
struct Says(SignOutcome);

impl Operator for Says {
    async fn ask(&self, _: Asking, _: String) -> Option<SignOutcome> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn the_agent_hears_why_the_operator_refuses() {
    let all = [
        (SignReason::Token, EnrolReason::Token),
        (SignReason::Agent, EnrolReason::Agent),
        (SignReason::Request, EnrolReason::Request),
        (SignReason::Unavailable, EnrolReason::Unavailable),
        (SignReason::Unknown, EnrolReason::Other),
    ];
    let applicant = Applicant::Agent(identity());
    for (reason, expected) in all {
        let refused = SignRefusal { reason, detail: "words".to_owned() };
        let signer = RemoteSigner(Says(SignOutcome::Refused { refused }));
        let refusal = signer.sign(&applicant, b"request").await.expect_err("refused");
        assert_eq!((refusal.reason, refusal.detail.as_str()), (expected, "words"));
    }
    let damaged = Issued { certificate: "!".to_owned(), root: String::new() };
    let refusal = RemoteSigner(Says(SignOutcome::Issued(damaged))).sign(&applicant, b"request").await;
    assert_eq!(refusal.expect_err("damaged").reason, EnrolReason::Unavailable);
}
