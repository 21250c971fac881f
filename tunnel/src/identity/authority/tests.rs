use std::fs;

use rcgen::CertificateSigningRequest;
use tunnel_core::identity::AgentName;

use super::*;
use crate::identity::{
    agent::AgentFolder,
    tls::{Peer, endpoint, peer},
};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const LIFETIME: Duration = Duration::from_secs(7 * DAY);

fn identity() -> AgentIdentity {
    AgentIdentity::new(AgentName::new("home", "pi4").expect("names"), "u-1", 0).expect("an identity")
}

fn requested(parameters: &CertificateParams, key: &KeyPair) -> CertificateSigningRequest {
    parameters.serialize_request(key).expect("a request")
}

#[test]
fn a_root_is_made_once_and_loaded_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tunnels");
    let made = Authority::open(&path, NOW).expect("made").fingerprint();
    assert_eq!(Authority::open(&path, NOW + 5 * DAY).expect("loaded").fingerprint(), made);
    let other = tempfile::tempdir().expect("a folder");
    assert_ne!(Authority::open(other.path(), NOW).expect("made").fingerprint(), made);
}

#[test]
fn a_root_that_is_over_or_damaged_or_exposed_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = |now| Authority::open(folder.path(), now).expect_err("refused").to_string();
    Authority::open(folder.path(), NOW).expect("made");
    let late = error(NOW + LIFE + DAY);
    assert!(late.contains("expired 24 hours ago") && late.contains("clock"), "{late}");
    let early = error(NOW - DAY);
    assert!(early.contains("becomes valid only in") && early.contains("clock"), "{early}");
    let path = folder.path().join(FILE);
    let kept = fs::read_to_string(&path).expect("read");
    let other = KeyPair::generate().expect("a key").serialize_pem();
    let certificate = &kept[..kept.find("-----BEGIN PRIVATE").expect("a key")];
    for damaged in ["", certificate, &format!("{certificate}{other}")] {
        fs::write(&path, damaged).expect("written");
        let damaged = error(NOW);
        assert!(damaged.contains("root.pem") && damaged.contains("restore"), "{damaged}");
    }
}

#[test]
fn a_signed_agent_has_our_name_and_none_of_its_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open(folder.path(), NOW).expect("made");
    let key = KeyPair::generate().expect("a key");
    let mut wishes = CertificateParams::new(vec!["example.com".to_owned()]).expect("names");
    wishes.subject_alt_names.push(SanType::URI("portlane://tunnel-endpoint/edge".try_into().expect("a URI")));
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = Request::parse(requested(&wishes, &key).der()).expect("valid");
    assert_eq!(request.key(), Fingerprint::of(&key.subject_public_key_info()));

    let certificate = authority.sign(&request, &identity(), LIFETIME, NOW).expect("signed");
    assert_eq!(peer(Some(std::slice::from_ref(&certificate))), Ok(Peer::Agent(identity())));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("readable");
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().expect("readable").expect("there").value;
    assert!(usage.client_auth && !usage.server_auth);
    let facts = facts(&certificate).expect("readable");
    assert_eq!(facts.key, request.key());
    assert_eq!((facts.not_before, facts.not_after), (NOW - SKEW.as_secs(), NOW + LIFETIME.as_secs()));
}

#[test]
fn no_certificate_outlives_the_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open(folder.path(), NOW).expect("made");
    let key = KeyPair::generate().expect("a key");
    let request = Request::parse(requested(&CertificateParams::default(), &key).der()).expect("valid");
    let certificate = authority.sign(&request, &identity(), LIFETIME, NOW + LIFE - DAY).expect("signed");
    assert_eq!(facts(&certificate).expect("readable").not_after, NOW + LIFE);
}

#[test]
fn an_endpoint_gets_its_name_and_sends_the_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open(folder.path(), NOW).expect("made");
    let id = EndpointId::new("laptop").expect("an id");
    let leaf = authority.endpoint(&id, LIFETIME, NOW).expect("issued");
    assert_eq!(endpoint(Some(&leaf.cert)), Ok(id));
    assert_eq!(leaf.cert.get(1), Some(authority.root()));
}

#[test]
fn a_root_that_is_kept_elsewhere_signs_endpoints_and_is_judged_by_the_clock() {
    let pem = Authority::generate(NOW).expect("made");
    let authority = Authority::parse(pem.as_bytes()).expect("whole");
    assert!(authority.check(NOW).is_ok() && authority.check(NOW + LIFE + DAY).is_err());
    assert!(Authority::parse(b"something else").is_none());
    let key = KeyPair::generate().expect("a key");
    let request = Request::parse(requested(&CertificateParams::default(), &key).der()).expect("valid");
    let id = EndpointId::new("1f0c").expect("an id");
    let leaf = authority.sign_endpoint(&request, &id, LIFETIME, NOW).expect("signed");
    assert_eq!(facts(&leaf).expect("readable").key, request.key());
    assert_eq!(endpoint(Some(&[leaf, authority.root().clone()])), Ok(id));
}

#[test]
fn requests_that_do_not_prove_a_key_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = AgentFolder::open(folder.path()).expect("a folder");
    let der = agent.key().expect("a key").request().expect("a request");
    assert!(Request::parse(&der).is_ok());
    let mut forged = der.clone();
    let last = forged.last_mut().expect("bytes");
    *last ^= 1;
    assert!(matches!(Request::parse(&forged), Err(RequestError::Invalid(_))));
    assert!(matches!(Request::parse(&der[..der.len() - 1]), Err(RequestError::Invalid(_))));
    assert!(matches!(Request::parse(&[0x30; MAX_REQUEST + 1]), Err(RequestError::TooLong(_))));
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let other = requested(&CertificateParams::default(), &key);
    assert!(matches!(Request::parse(other.der()), Err(RequestError::Algorithm)));
}
