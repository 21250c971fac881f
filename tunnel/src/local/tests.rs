//! The folder of a server whose clock the test keeps.

use std::{
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU64, Ordering},
};

use proxy_api::with_causes;
use rustls::pki_types::UnixTime;
use tempfile::TempDir;
use tunnel_core::identity::AgentName;

use super::*;
use crate::{
    enrol::{Applicant, Signer},
    identity::agent::AgentFolder,
};

const NOW: u64 = 1_800_000_000;

#[derive(Debug)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

struct Bed {
    folder: TempDir,
    clock: Arc<Clock>,
    local: Local,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(Clock(AtomicU64::new(NOW)));
        let local = open(&folder, &clock);
        Self { folder, clock, local }
    }

    fn later(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn earlier(&self, seconds: u64) {
        self.clock.0.fetch_sub(seconds, Ordering::Relaxed);
    }

    /// The join string for two agents at this address, for an hour; a new token has this number.
    fn offer(&self, at: &str, number: u8) -> Option<Offer> {
        self.try_offer(at, number).expect("a folder that can be used")
    }

    fn try_offer(&self, at: &str, number: u8) -> Result<Option<Offer>, LocalError> {
        let addresses = [at.parse::<Address>().expect("an address")];
        self.local.offer(&identity(), wanted(&addresses), || Ok([number; 32]))
    }

    /// Enrols an agent with the join string in the folder.
    async fn enrol(&self) {
        let join = self.local.joins.read(identity().agent()).expect("readable").expect("a join string");
        let home = tempfile::tempdir().expect("a folder");
        let key = AgentFolder::open(&home.path().join("agent")).expect("made").key().expect("a key");
        let applicant = Applicant::Token { agent: join.agent().clone(), token: join.token().clone() };
        let signed = self.local.signer.sign(&applicant, &key.request().expect("a request")).await;
        signed.expect("a certificate");
    }
}

/// For two agents, for an hour.
fn wanted(addresses: &[Address]) -> Wanted<'_> {
    Wanted { redemptions: 2, expire: Duration::from_secs(3600), addresses }
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn open(folder: &TempDir, clock: &Arc<Clock>) -> Local {
    try_open(folder, clock).expect("a folder that can be used")
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn try_open(folder: &TempDir, clock: &Arc<Clock>) -> Result<Local, LocalError> {
    let id = EndpointId::new("local").expect("an id");
    let policy = |_: &str| Some(Policy { rotation: 0, suspended: false, is_newer: false, max_instances: 4 });
    Local::open(folder.path(), id, clock.clone(), policy)
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn identity() -> AgentIdentity {
    AgentIdentity::new(AgentName::new("infra", "home").expect("a name"), "u-1", 0).expect("an identity")
}

#[tokio::test]
async fn a_join_string_stays_over_restarts_until_as_many_agents_as_may_have_enrolled() {
    let mut bed = Bed::new();
    let first = bed.offer("home.example:7443", 1).expect("a join string");
    assert_eq!(first.path, bed.folder.path().join("join/infra.home"));
    let mode = std::fs::metadata(&first.path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bed.enrol().await;
    bed.local = open(&bed.folder, &bed.clock);
    assert_eq!(bed.offer("home.example:7443", 2), Some(first.clone()), "one more may enrol");
    assert!(bed.local.is_live(&first));
    bed.enrol().await;
    assert!(!bed.local.is_live(&first));
    assert_eq!(bed.offer("home.example:7443", 3), None);
    assert!(!first.path.exists(), "it is worth nothing");
}

#[tokio::test]
async fn a_join_string_that_expired_or_has_other_addresses_is_replaced_for_those_who_have_not_enrolled() {
    let bed = Bed::new();
    let first = bed.offer("home.example:7443", 1).expect("a join string");
    bed.enrol().await;
    bed.later(3600);
    assert!(!bed.local.is_live(&first));
    let second = bed.offer("home.example:7443", 2).expect("a join string");
    let moved = bed.offer("home.example:7444", 3).expect("a join string");
    assert_ne!((first.token, second.token), (second.token, moved.token));
    bed.enrol().await;
    assert_eq!(bed.offer("home.example:7444", 4), None, "two have enrolled");
}

#[test]
fn a_join_string_counts_until_the_second_in_which_it_expires() {
    let bed = Bed::new();
    let first = bed.offer("home.example:7443", 1).expect("a join string");
    bed.later(3599);
    assert!(bed.local.is_live(&first));
    assert_eq!(bed.offer("home.example:7443", 2), Some(first.clone()), "it stays");
    bed.later(1);
    assert!(!bed.local.is_live(&first));
    let second = bed.offer("home.example:7443", 2).expect("a join string");
    assert_eq!((&second.path, bed.local.is_live(&second)), (&first.path, true));
    assert_ne!(second.token, first.token);
}

#[test]
fn a_damaged_file_is_named_with_a_remedy_and_stays_as_it_is() {
    let bed = Bed::new();
    bed.offer("home.example:7443", 1).expect("a join string");
    let remedy = "restore the file, or remove it";
    for name in ["tokens.json", "root.pem"] {
        let path = bed.folder.path().join(name);
        let whole = std::fs::read(&path).expect("a file");
        for length in [0, 1, whole.len() / 2, whole.len() - 30] {
            std::fs::write(&path, &whole[..length]).expect("written");
            let error = with_causes(&try_open(&bed.folder, &bed.clock).expect_err("damaged"));
            assert!(error.contains(name) && error.contains(remedy), "{error}");
            assert_eq!(std::fs::read(&path).expect("a file"), &whole[..length], "it may be repaired");
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
        let error = with_causes(&try_open(&bed.folder, &bed.clock).expect_err("not readable"));
        assert!(error.contains(name) && error.contains("check that the path is right"), "{error}");
        std::fs::remove_dir(&path).expect("removed");
        std::fs::write(&path, &whole).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    try_open(&bed.folder, &bed.clock).expect("repaired");
}

#[tokio::test]
async fn a_folder_that_is_removed_under_the_server_is_named_and_what_was_given_out_still_counts() {
    let bed = Bed::new();
    let first = bed.offer("home.example:7443", 1).expect("a join string");
    let path = bed.folder.path();
    std::fs::remove_dir_all(path).expect("removed");
    let error = with_causes(&bed.try_offer("home.example:7443", 2).expect_err("no folder"));
    assert!(error.contains(&format!("{} is gone: restore it", path.display())), "{error}");
    assert!(bed.local.is_live(&first), "the one that was given out");
    std::fs::create_dir(path).expect("made");
    bed.offer("home.example:7443", 3).expect("a join string, once the folder is there");
}

#[test]
fn the_certificate_of_the_server_is_replaced_after_half_of_its_lifetime() {
    let mut bed = Bed::new();
    let leaf = |local: &Local| local.leaf.0.read().map(|leaf| leaf.clone()).ok();
    let first = leaf(&bed.local).expect("a certificate");
    for (seconds, is_same) in [(LIFETIME.as_secs() / 2 - 1, true), (1, false)] {
        bed.later(seconds);
        bed.local.renew().expect("a certificate");
        assert_eq!(Arc::ptr_eq(&first, &leaf(&bed.local).expect("a certificate")), is_same);
    }
}

#[test]
fn a_clock_that_was_ahead_leaves_no_certificate_that_does_not_count_yet() {
    let mut bed = Bed::new();
    let leaf = |local: &Local| local.leaf.0.read().map(|leaf| leaf.clone()).ok();
    bed.later(30 * 24 * 3600);
    bed.local.renew().expect("a certificate");
    let ahead = leaf(&bed.local).expect("a certificate");
    for (seconds, is_same) in [(SKEW.as_secs(), true), (1, false)] {
        bed.earlier(seconds);
        bed.local.renew().expect("a certificate");
        assert_eq!(Arc::ptr_eq(&ahead, &leaf(&bed.local).expect("a certificate")), is_same);
    }
}

#[tokio::test]
async fn after_the_root_was_removed_all_agents_enrol_again_with_new_join_strings() {
    let mut bed = Bed::new();
    bed.offer("home.example:7443", 1).expect("a join string");
    bed.enrol().await;
    bed.enrol().await;
    assert_eq!(bed.offer("home.example:7443", 2), None);
    bed.local = open(&bed.folder, &bed.clock);
    assert!(!bed.local.has_other_root());
    std::fs::remove_file(bed.folder.path().join("root.pem")).expect("removed");
    bed.local = open(&bed.folder, &bed.clock);
    assert!(bed.local.has_other_root(), "the log says so");
    bed.offer("home.example:7443", 3).expect("a join string of the new root");
    bed.enrol().await;
    bed.local = open(&bed.folder, &bed.clock);
    assert!(!bed.local.has_other_root(), "once they have new tokens");
    assert!(bed.offer("home.example:7443", 4).is_some(), "one more may enrol");
}

#[tokio::test]
async fn a_redemption_that_cannot_be_kept_is_told_to_the_owner_of_the_server() {
    let bed = Bed::new();
    bed.offer("home.example:7443", 1).expect("a join string");
    std::fs::remove_dir_all(bed.folder.path()).expect("removed");
    let home = tempfile::tempdir().expect("a folder");
    let key = AgentFolder::open(&home.path().join("agent")).expect("made").key().expect("a key");
    let applicant = Applicant::Token { agent: identity().agent().clone(), token: Token::new([1; 32]) };
    let signed = bed.local.signer.sign(&applicant, &key.request().expect("a request")).await;
    let refusal = signed.expect_err("it is not on disk");
    assert!(refusal.detail.contains("see its log"), "{refusal}");
    let told = bed.local.notices();
    assert_eq!((told.len(), told[0].kind, told[0].subject.as_str()), (1, "signing", "infra/home"), "{told:?}");
    assert!(told[0].message.contains("is gone: restore it"), "{told:?}");
}
