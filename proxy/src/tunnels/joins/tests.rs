//! Join strings in a folder, at times that the test sets.

use std::fs;

use tempfile::TempDir;
use tunnel::local::system_clock;
use tunnel_core::{identity::EndpointId, registry::Policy};

use super::*;
use crate::{
    clock::Clock,
    lives::Lives,
    log::{LogFormat, Recorded},
};

struct Bed {
    folder: TempDir,
    local: Local,
    addresses: [Address; 1],
    log: Log,
    joins: Joins,
}

#[allow(clippy::expect_used, reason = "a test helper")]
impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let id = EndpointId::new("local").expect("an id");
        let policy = |_: &str| Some(Policy { rotation: 0, suspended: false, is_newer: false, max_instances: 4 });
        let local = Local::open(folder.path(), id, system_clock(), policy).expect("a folder that can be used");
        let guard = Lives::new(Clock::start()).guard("log");
        let log = Log::start(LogFormat::Text, Level::Info, 1, Box::new(io::sink()), guard).expect("a thread").0;
        let addresses = ["home.example:7443".parse().expect("an address")];
        Self { folder, local, addresses, log, joins: Joins::default() }
    }

    /// Applies a configuration at this time, with an agent whose join string is valid for this many seconds.
    fn apply(&mut self, expire_seconds: u32, now: Instant) {
        let enrolment = Some(Enrolment { redemptions: 1, expire_seconds });
        let home = Agent { enrolment, ..super::super::tests::home_agent(false) };
        let Self { local, addresses, log, joins, .. } = self;
        joins.apply(Maker { local, addresses, log, now }, &BTreeMap::from([("u-1".to_owned(), home)]));
    }

    fn look(&mut self, now: Instant) {
        let Self { local, addresses, log, joins, .. } = self;
        joins.look(Maker { local, addresses, log, now });
    }

    fn join(&self) -> Option<String> {
        fs::read_to_string(self.folder.path().join("join/infra.home")).ok()
    }

    fn said(&self) -> Vec<String> {
        self.log.recent().into_iter().map(|Recorded { message, .. }| message).collect()
    }
}

#[test]
fn it_is_time_when_a_join_string_counts_no_longer_and_a_failure_was_long_enough_ago() {
    let now = Instant::now();
    let later = now + PAUSE;
    assert!(is_due(false, None, now) && !is_due(true, None, now));
    assert!(!is_due(false, Some(later), now) && is_due(false, Some(later), later));
    assert!(is_due(true, Some(now), now), "one that could not be replaced though it counts");
}

#[test]
fn a_join_string_that_has_expired_is_replaced_without_another_configuration() {
    let (mut bed, now) = (Bed::new(), Instant::now());
    bed.apply(0, now);
    let first = bed.join().expect("a join string");
    bed.look(now);
    let second = bed.join().expect("a join string");
    assert_ne!(first, second);
    let said = bed.said();
    assert!(
        said[0].starts_with("enrols with the join string in") && said[1].starts_with("its join string has expired")
    );
    assert!(said.iter().all(|text| text.contains("join/infra.home") && !text.contains(second.trim())), "{said:?}");
}

#[test]
fn a_join_string_that_counts_stays() {
    let (mut bed, now) = (Bed::new(), Instant::now());
    bed.apply(3600, now);
    let first = bed.join();
    bed.look(now + Duration::from_secs(10));
    assert!(first.is_some() && bed.join() == first && bed.said().len() == 1);
}

#[test]
fn a_fault_of_the_folder_is_told_once_and_what_it_hindered_is_made_up_for() {
    let (mut bed, now) = (Bed::new(), Instant::now());
    let (path, aside) = (bed.folder.path().to_owned(), bed.folder.path().with_extension("aside"));
    fs::rename(&path, &aside).expect("moved");
    bed.apply(3600, now);
    for seconds in [1, 59, 60, 120] {
        bed.look(now + Duration::from_secs(seconds));
    }
    let said = bed.said();
    assert!(said.len() == 1 && said[0].contains("is gone: restore it"), "{said:?}");
    fs::rename(&aside, &path).expect("moved back");
    bed.look(now + Duration::from_secs(179));
    assert_eq!(bed.join(), None, "a minute after the last attempt");
    bed.look(now + Duration::from_secs(180));
    assert!(bed.join().is_some());
}
