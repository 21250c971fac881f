//! What a proxy is sent first and next, and what of its reports is passed on.

use std::{borrow::Cow, collections::BTreeSet, ptr, sync::Arc};

use operator_core::{
    Group, Snapshot,
    publish::position::{NeverSent, Position, Reported, running},
};
use proxy_api::{
    BackendHealth, Digest, ListenerId, ListenerReport, ListenerState, Origin, ReportPart, Revision, Version,
};

use crate::scene::{Scene, key};

fn version(number: u64) -> Version {
    Version { epoch: "term".to_owned(), number }
}

/// The digest of the snapshot with this number.
fn digest(number: u64) -> Digest {
    Digest(format!("digest-{number}"))
}

/// A snapshot whose digest is of its number.
fn snapshot(number: u64) -> Arc<Snapshot> {
    Arc::new(Snapshot { version: version(number), digest: digest(number), ..Snapshot::default() })
}

/// A report that this snapshot runs.
fn report(number: u64) -> ReportPart {
    ReportPart { version: version(number), digest: digest(number), commit: true, ..ReportPart::default() }
}

/// The number from which the next step leads.
fn due(position: &Position) -> Option<u64> {
    position.due().map(|at| at.version.number)
}

/// The position of a proxy that was sent the snapshots of these numbers.
fn sent(numbers: &[u64]) -> Position {
    let (first, others) = numbers.split_first().expect("a snapshot");
    let mut position = Position::new(snapshot(*first));
    for number in others {
        position.outdate();
        assert!(position.due().is_some(), "{number} waits");
        position.sent(snapshot(*number));
    }
    position
}

#[test]
fn a_proxy_that_runs_what_it_should_or_nothing_is_not_asked_what_it_holds() {
    let (now, nothing) = (snapshot(7), Snapshot::empty(Version::default()));
    let from = |digest: &Digest, unreadable: &BTreeSet<Origin>| {
        running(digest, unreadable, &now).map(|known| known.version.number)
    };
    assert_eq!(from(&digest(7), &BTreeSet::new()), Some(7));
    let known = running(&digest(7), &BTreeSet::new(), &now);
    assert!(matches!(known, Some(Cow::Borrowed(known)) if ptr::eq(known, Arc::as_ptr(&now))), "it is not copied");
    assert_eq!(from(&nothing.digest, &BTreeSet::new()), Some(0));
    assert_eq!(from(&digest(6), &BTreeSet::new()), None, "it runs something else");
    let unreadable = BTreeSet::from([Origin::port_forward("ns", "new")]);
    assert_eq!(from(&digest(7), &unreadable), None, "it may hold more than the snapshot has");
}

#[test]
fn a_step_is_due_once_there_is_a_newer_snapshot() {
    let mut position = sent(&[3]);
    assert_eq!(due(&position), None);
    position.outdate();
    assert_eq!(due(&position), Some(3));
    position.sent(snapshot(5));
    assert_eq!(due(&position), None);
    position.outdate();
    assert_eq!(due(&position), Some(5));
}

#[test]
fn a_silent_proxy_is_sent_eight_snapshots_and_no_more() {
    let mut position = sent(&[1, 2, 3, 4, 5, 6, 7, 8]);
    position.outdate();
    assert_eq!(due(&position), None);
    assert!(position.reported(&mut report(1)).is_ok());
    assert_eq!(due(&position), None, "the others are still in flight");
    assert!(position.reported(&mut report(2)).is_ok());
    assert_eq!(due(&position), Some(8));
    position.sent(snapshot(9));
    position.outdate();
    assert_eq!(due(&position), None);
    assert!(position.reported(&mut report(9)).is_ok());
    assert_eq!(due(&position), Some(9));
}

#[test]
fn a_proxy_agrees_if_it_runs_what_was_sent_under_the_number() {
    let mut position = sent(&[1, 3, 5]);
    let mut agrees = |mut part: ReportPart| position.reported(&mut part).map(|reported| reported.agreed);
    assert_eq!(agrees(report(1)), Ok(true));
    assert_eq!(agrees(ReportPart { digest: digest(5), ..report(3) }), Ok(false), "of another number");
    assert_eq!(agrees(report(4)), Ok(false), "no snapshot has this number");
    assert_eq!(agrees(report(5)), Ok(true));
    assert_eq!(agrees(report(3)), Ok(false), "it has reported a later one before");
}

#[test]
fn a_report_about_a_version_that_was_never_sent_is_a_lie() {
    let mut position = sent(&[1, 3]);
    let mut other = report(1);
    other.version.epoch = "another".to_owned();
    for mut lie in [report(4), report(u64::MAX), other] {
        assert_eq!(position.reported(&mut lie), Err(NeverSent), "{:?}", lie.version);
    }
    assert_eq!(position.reported(&mut report(1)), Ok(Reported { agreed: true, is_outdated: false }));
}

#[test]
fn listeners_that_are_no_longer_published_are_left_out() {
    let scene = Scene::with_web();
    let runs = scene.translator.snapshot(&Group::Gateway(key("edge"))).expect("a snapshot").clone();
    let mut position = Position::new(runs.clone());
    let bound = || ListenerReport {
        revision: Revision::default(),
        state: ListenerState::Bound,
        failure: None,
        backends: BackendHealth::All,
        reached: None,
        looped: false,
        delivery: None,
    };
    let mut of = |ids: BTreeSet<ListenerId>| {
        let listeners = ids.into_iter().map(|id| (id, bound())).collect();
        let (version, digest) = (runs.version.clone(), runs.digest.clone());
        let mut part = ReportPart { version, digest, listeners, ..ReportPart::default() };
        let reported = position.reported(&mut part).expect("it was sent");
        (part.listeners.into_keys().collect::<BTreeSet<_>>(), reported.is_outdated)
    };
    let published: BTreeSet<ListenerId> = runs.listeners.keys().cloned().collect();
    assert_eq!((of(published.clone()), published.len()), ((published.clone(), false), 1));
    let mut more = published.clone();
    more.insert(ListenerId::new(Origin::port_forward("ns", "gone"), "a"));
    assert_eq!(of(more), (published, true));
}
