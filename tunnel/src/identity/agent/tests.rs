use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use tunnel_core::identity::AgentName;

use super::*;
use crate::identity::authority::{Authority, Request};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// A server, and the folder of an agent.
struct Scene {
    authority: Authority,
    agent: AgentFolder,
    temporary: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(&temporary.path().join("server"), NOW).expect("made");
        let agent = AgentFolder::open(&temporary.path().join("agent")).expect("made");
        Self { authority, agent, temporary }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.temporary.path().join("agent").join(name)
    }

    fn issued(&self, key: &AgentKey) -> CertificateDer<'static> {
        let request = Request::parse(&key.request().expect("a request")).expect("valid");
        self.authority.sign(&request, &identity(), Duration::from_secs(8 * DAY), NOW).expect("signed")
    }

    fn enrol(&self) -> (AgentKey, Enrolled) {
        let key = self.agent.key().expect("a key");
        let root = self.authority.root().clone();
        let enrolled = self.agent.keep(&key, self.issued(&key), root, NOW).expect("kept");
        (key, enrolled)
    }
}

fn identity() -> AgentIdentity {
    AgentIdentity::new(AgentName::new("home", "pi4").expect("names"), "u-1", 0).expect("an identity")
}

#[test]
fn an_agent_makes_its_key_once_and_finds_its_certificate_again() {
    let scene = Scene::new();
    let key = scene.agent.key().expect("a key");
    assert_eq!(scene.agent.enrolled(&key, NOW).expect("readable"), None);
    assert_eq!(scene.agent.key().expect("the key").fingerprint(), key.fingerprint());
    let (key, enrolled) = scene.enrol();
    assert_eq!(enrolled.identity, identity());
    assert_eq!(scene.agent.enrolled(&key, NOW).expect("readable"), Some(enrolled.clone()));
    assert!(!enrolled.renewal_due(NOW + 3 * DAY) && enrolled.renewal_due(NOW + 4 * DAY));
    for name in [KEY, CERTIFICATE] {
        assert_eq!(fs::metadata(scene.file(name)).expect("a file").permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_exposed_key_is_refused_and_the_error_says_chmod() {
    let scene = Scene::new();
    scene.agent.key().expect("a key");
    fs::set_permissions(scene.file(KEY), fs::Permissions::from_mode(0o644)).expect("chmod");
    let error = scene.agent.key().expect_err("exposed").to_string();
    assert!(error.contains("chmod 600") && error.contains(KEY), "{error}");
}

#[test]
fn a_key_file_with_something_else_is_not_replaced() {
    let scene = Scene::new();
    scene.agent.key().expect("a key");
    fs::write(scene.file(KEY), "something else").expect("written");
    assert!(matches!(scene.agent.key(), Err(AgentError::Key(_))));
    assert_eq!(fs::read_to_string(scene.file(KEY)).expect("read"), "something else");
}

#[test]
fn a_certificate_that_does_not_count_says_by_how_much_and_to_check_the_clock() {
    let scene = Scene::new();
    let (key, _) = scene.enrol();
    let late = scene.agent.enrolled(&key, NOW + 10 * DAY).expect_err("expired").to_string();
    assert!(late.contains("expired 2 days ago") && late.contains("check the clock"), "{late}");
    let early = scene.agent.enrolled(&key, NOW - 3 * DAY).expect_err("not yet").to_string();
    assert!(early.contains("becomes valid only in 2 days") && early.contains("check the clock"), "{early}");
}

#[test]
fn a_certificate_of_another_key_or_root_or_kind_is_neither_kept_nor_used() {
    let scene = Scene::new();
    let other = Scene::new();
    let (key, enrolled) = scene.enrol();
    let root = scene.authority.root().clone();
    let leaf = tunnel_core::identity::EndpointId::new("edge").expect("an id");
    let endpoint = scene.authority.endpoint(&leaf, Duration::from_secs(DAY), NOW).expect("issued").cert.remove(0);
    for (certificate, root, wanted) in [
        (scene.issued(&other.agent.key().expect("a key")), root.clone(), Flaw::OtherKey),
        (scene.issued(&key), other.authority.root().clone(), Flaw::Untrusted),
        (endpoint, root.clone(), Flaw::NotOfAgent),
        (CertificateDer::from(vec![1, 2, 3]), root, Flaw::NotOfAgent),
    ] {
        let kept = scene.agent.keep(&key, certificate, root, NOW);
        assert!(matches!(kept, Err(AgentError::Issued { flaw }) if flaw == wanted), "{kept:?}");
        assert_eq!(scene.agent.enrolled(&key, NOW).expect("readable"), Some(enrolled.clone()), "nothing changed");
    }
    fs::write(scene.file(CERTIFICATE), "").expect("written");
    let cut = scene.agent.enrolled(&key, NOW).expect_err("empty").to_string();
    assert!(cut.contains(CERTIFICATE) && cut.contains("enrol again"), "{cut}");
}
