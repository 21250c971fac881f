//! The Secret of an agent: its owner and its contents.

use k8s_openapi::ByteString;
use operator_core::{
    ObjectKey,
    enrolment::{Kept, Unusable, Wanted, kept_in, secret_with},
};
use tunnel_core::identity::{AgentIdentity, AgentName};

/// What the Secret of the agent `home` with this uid should offer.
fn wanted(uid: &str) -> Wanted {
    let name = AgentName::new("ns", "home").expect("a name");
    Wanted {
        key: ObjectKey::new("ns", "home"),
        gateway_namespace: "ns".to_owned(),
        gateway_uid: "uid-edge".to_owned(),
        identity: AgentIdentity::new(name, uid, 0).expect("an identity"),
        redemptions: 1,
        expire_seconds: 3600,
        addresses: Ok(Vec::new()),
    }
}

fn joinable() -> Kept {
    Kept { join: Some("a word".to_owned()), ..Kept::default() }
}

#[test]
fn a_secret_belongs_to_its_agent_and_is_read_as_it_was_written() {
    let home = wanted("uid-home");
    let secret = secret_with(None, &home, &joinable()).expect("a Secret");
    let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
    let owners: Vec<(&str, &str)> = owners.iter().map(|owner| (owner.kind.as_str(), owner.uid.as_str())).collect();
    assert_eq!(owners, [("ForwardAgent", "uid-home")]);
    assert!(kept_in(&secret, &home) == Ok(joinable()));
    let secret = secret_with(Some(secret), &home, &Kept::default()).expect("a Secret");
    assert!(!secret.data.unwrap_or_default().contains_key("join"), "nobody may enrol any more");
}

#[test]
fn a_secret_of_an_earlier_agent_of_somebody_else_or_with_another_content_is_not_used() {
    let (home, name) = (wanted("uid-home"), || "home-enrolment".to_owned());
    let mut secret = secret_with(None, &home, &joinable()).expect("a Secret");
    assert_eq!(kept_in(&secret, &wanted("uid-later")).err(), Some(Unusable::Earlier(name())));
    secret.data.get_or_insert_default().insert("ledger.json".to_owned(), ByteString(b"{".to_vec()));
    assert_eq!(kept_in(&secret, &home).err(), Some(Unusable::Content(name())));
    secret.metadata.owner_references = None;
    assert_eq!(kept_in(&secret, &home).err(), Some(Unusable::Taken(name())));
}

#[test]
fn a_secret_is_made_beside_its_agent_and_says_who_manages_it() {
    let metadata = secret_with(None, &wanted("uid-home"), &joinable()).expect("a Secret").metadata;
    assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some("home-enrolment"), Some("ns")));
    let labels = [("app.kubernetes.io/managed-by".to_owned(), "portlane-operator".to_owned())];
    assert_eq!(metadata.labels, Some(labels.into()));
    let owners = metadata.owner_references.unwrap_or_default();
    let [owner] = owners.as_slice() else { panic!("{owners:?}") };
    assert_eq!((owner.api_version.as_str(), owner.name.as_str()), ("portlane.dev/v1alpha1", "home"));
    assert_eq!(owner.controller, Some(true));
}

#[test]
fn only_an_agent_of_the_same_name_was_an_earlier_one() {
    let home = wanted("uid-home");
    let of = |kind: &str, name: &str| {
        let mut secret = secret_with(None, &wanted("uid-other"), &joinable()).expect("a Secret");
        for owner in secret.metadata.owner_references.iter_mut().flatten() {
            (owner.kind, owner.name) = (kind.to_owned(), name.to_owned());
        }
        kept_in(&secret, &home).err()
    };
    let name = || "home-enrolment".to_owned();
    assert_eq!(of("ForwardAgent", "home"), Some(Unusable::Earlier(name())));
    assert_eq!(of("ForwardAgent", "office"), Some(Unusable::Taken(name())));
    assert_eq!(of("ForwardGateway", "home"), Some(Unusable::Taken(name())));
}
