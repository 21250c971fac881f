use proptest::prelude::*;

use super::*;

const PREFIX: &str = "log-";

fn generation(number: u32, lanes: usize) -> Generation {
    Generation { number, lanes }
}

#[test]
fn a_source_has_its_lane_for_ever() {
    let lane = |address: &str, lanes| lane_of(address.parse().expect("an address"), lanes);
    // The checksum of these four bytes is 0x9be3e0a3.
    assert_eq!([1, 2, 4, 16].map(|lanes| lane("49.50.51.52", lanes)), [0, 1, 2, 9]);
    assert_eq!([lane("192.0.2.1", 4), lane("192.0.2.2", 4)], [0, 2]);
    assert_eq!(lane("::ffff:49.50.51.52", 16), 9, "the same client over the other kind of socket");
}

#[test]
fn neighbours_spread_over_all_lanes() {
    for lanes in 2..=MAX_LANES {
        let mut sources = vec![0; lanes];
        for last in 0..=u8::MAX {
            sources[lane_of(IpAddr::from([192, 0, 2, last]), lanes)] += 1;
        }
        let (least, most) = (sources.iter().min(), sources.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 2), "{lanes}: {sources:?}");
    }
}

#[test]
fn a_log_without_lanes_has_the_names_from_before_there_were_any() {
    let prefixes = |of: Generation| of.prefixes(PREFIX).collect::<Vec<_>>();
    assert_eq!(prefixes(Generation::FIRST), ["log-"]);
    assert_eq!(prefixes(generation(2, 1)), ["log-2-1-0-"]);
    assert_eq!(prefixes(generation(1, 3)), ["log-1-3-0-", "log-1-3-1-", "log-1-3-2-"]);
}

#[test]
fn generations_are_known_by_the_names_of_their_files() {
    let names = [
        "LOCK",
        "log-0000000000000000.log",
        "log-1-4-3-0000000000000001.log",
        "log-1-4-3-cursor.1",
        "log-2-16-0-cursor",
        "log-3-2-0-dead-0000000000000000.log",
        "log-4-2-1-0000000000000000.damaged",
        "log-5-2-2-cursor",
        "other-6-2-0-cursor",
    ];
    let logs: Vec<_> = with_logs(names, PREFIX).into_iter().collect();
    assert_eq!(logs, [Generation::FIRST, generation(1, 4), generation(2, 16)]);
    let letters: Vec<_> = with_letters(names, PREFIX).into_iter().collect();
    assert_eq!(letters, [generation(3, 2)]);
    let letters = with_letters(["log-dead-0000000000000000.log"], PREFIX);
    assert!(letters.contains(&Generation::FIRST) && with_logs(["log-dead-cursor"], PREFIX).is_empty());
    let before: Vec<&str> = names.into_iter().filter(|name| is_before(name, PREFIX, 2)).collect();
    assert_eq!(before, names[1..4], "and none that a later release may have written");
}

#[test]
fn a_name_with_a_number_or_lanes_that_no_generation_has_is_that_of_no_log() {
    for name in ["log-0-4-0-cursor", "log-6-17-0-cursor", "log-6-0-0-cursor"] {
        assert!(with_logs([name], PREFIX).is_empty(), "{name}");
    }
}

#[test]
fn earlier_logs_leave_the_rest_of_the_bytes_to_later_ones_in_equal_parts() {
    let files = [
        ("log-0000000000000000.log", 7),
        ("log-0000000000000001.damaged", 5),
        ("log-dead-0000000000000000.log", 3),
        ("log-1-4-0-0000000000000000.log", 100),
        ("LOCK", 1),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
    assert_eq!([0, 1, 2].map(|number| bytes_before(&files, PREFIX, number)), [(0, 0), (12, 3), (112, 3)]);
    assert_eq!([part(112, 12, 4, 0), part(112, 12, 4, 30), part(112, 200, 4, 30)], [25, 30, 30]);
}

#[test]
fn files_that_no_store_counts_are_those_of_other_generations_and_letters_that_are_not_opened() {
    let files = [
        ("log-0000000000000000.log", 1),
        ("log-0000000000000001.damaged", 2),
        ("log-dead-0000000000000000.log", 4),
        ("log-1-2-1-0000000000000000.log", 8),
        ("log-1-2-1-dead-0000000000000000.log", 16),
        ("log-a-later-release.log", 32),
        ("log-cursor", 64),
        ("LOCK", 128),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
    let two = generation(1, 2);
    let beside = |opened: &[Generation], with_letters| bytes_beside(&files, PREFIX, opened, with_letters);
    assert_eq!([beside(&[], true), beside(&[], false)], [63, 63]);
    assert_eq!([beside(&[Generation::FIRST], true), beside(&[Generation::FIRST], false)], [56, 60]);
    assert_eq!([beside(&[Generation::FIRST, two], true), beside(&[two], false)], [32, 55]);
}

#[test]
fn lanes_change_only_where_the_new_logs_fit_beside_the_old_ones() {
    let files = [
        ("log-0000000000000000.log", 60),
        ("log-1-2-0-0000000000000000.log", 30),
        ("log-1-2-1-0000000000000000.log", 20),
        ("log-1-2-1-dead-0000000000000000.log", 900),
    ];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes));
    let lanes = |all, last, wanted| Bytes { all, least: 10 }.lanes(&files, PREFIX, Some(last), wanted);
    let two = generation(1, 2);
    assert_eq!(
        [lanes(90, two, 4), lanes(89, two, 4)],
        [4, 2],
        "the first one's files go, and dead letters count apart"
    );
    assert_eq!([lanes(100, Generation::FIRST, 4), lanes(99, Generation::FIRST, 4)], [4, 1]);
    assert_eq!(lanes(0, two, 2), 2, "as it was");
    assert_eq!(Bytes { all: 0, least: 10 }.lanes(&[], PREFIX, None, 4), 4, "the first logs of a listener");
    let many = Bytes { all: 50, least: 10 };
    assert!(many.fit(150, 16, 1) && !many.fit(151, 16, 1), "fewer logs have less than those that there are may have");
}

#[test]
fn an_empty_folder_has_a_first_generation_of_the_wanted_lanes() {
    let present = |wanted| Plan::of(&[], wanted).present;
    assert_eq!((present(1), present(4)), (Generation::FIRST, generation(1, 4)));
}

#[test]
fn another_number_of_lanes_is_a_generation_behind_the_one_whose_messages_wait() {
    let one = Generation::FIRST;
    let plan =
        |former: &[Generation], present, removes_before| Plan { former: former.to_vec(), present, removes_before };
    assert_eq!(Plan::of(&[(one, 3)], 1), plan(&[], one, 0), "as it was");
    assert_eq!(Plan::of(&[(one, 3)], 4), plan(&[one], generation(1, 4), 0));
    assert_eq!(Plan::of(&[(one, 0)], 4), plan(&[], generation(1, 4), 0), "nothing waits");
    let four = generation(1, 4);
    assert_eq!(Plan::of(&[(one, 0), (four, 5)], 1), plan(&[four], generation(2, 1), 1), "the first one's files go");
}

#[test]
fn a_change_waits_for_the_messages_of_the_one_before_and_a_restart_changes_nothing_of_that() {
    let found = [(Generation::FIRST, 1), (generation(1, 4), 2)];
    for wanted in [1, 4, 8] {
        let plan = Plan::of(&found, wanted);
        assert_eq!((&plan.former[..], plan.present), (&[Generation::FIRST][..], generation(1, 4)), "{wanted}");
        assert_eq!(plan.removes_before, 0);
    }
}

/// A folder, as far as plans see it: generations and the messages of each, in the order in which they came.
#[derive(Default)]
struct Folder(Vec<(Generation, Vec<usize>)>);

impl Folder {
    /// Opens it with so many lanes.
    fn open(&mut self, wanted: usize) -> Plan {
        let found: Vec<_> = self.0.iter().map(|(generation, waiting)| (*generation, waiting.len() as u64)).collect();
        let plan = Plan::of(&found, wanted);
        for (generation, waiting) in &self.0 {
            let opened = plan.former.contains(generation) || plan.present == *generation;
            assert!(opened || waiting.is_empty(), "messages of {generation:?} are passed over: {plan:?}");
        }
        self.0.retain(|(generation, _)| generation.number >= plan.removes_before);
        if self.0.last().is_none_or(|(last, _)| *last != plan.present) {
            self.0.push((plan.present, Vec::new()));
        }
        assert!(self.0.len() <= 2, "{:?}", self.0);
        plan
    }
}

proptest! {
    /// Lanes change, messages come and leave, and the process restarts, in any order.
    #[test]
    fn whatever_changes_when_messages_leave_in_the_order_in_which_they_came(
        steps in prop::collection::vec((0_u8..3, 1_usize..5), 1..200)
    ) {
        let (mut folder, mut plan) = (Folder::default(), Plan::of(&[], 1));
        let (mut taken, mut sent) = (0, 0);
        for (what, lanes) in steps {
            match what {
                0 => plan = folder.open(lanes),
                1 => {
                    if folder.0.is_empty() {
                        plan = folder.open(lanes);
                    }
                    let (last, waiting) = folder.0.last_mut().expect("it was opened");
                    prop_assert_eq!(*last, plan.present);
                    waiting.push(taken);
                    taken += 1;
                }
                _ => {
                    let sends = plan.former.first().copied().unwrap_or(plan.present);
                    let of = folder.0.iter_mut().find(|(generation, _)| *generation == sends);
                    if let Some((_, waiting)) = of.filter(|(_, waiting)| !waiting.is_empty()) {
                        prop_assert_eq!(waiting.remove(0), sent);
                        sent += 1;
                        if waiting.is_empty() {
                            plan.former.retain(|former| *former != sends);
                        }
                    }
                }
            }
        }
        let waiting: usize = folder.0.iter().map(|(_, waiting)| waiting.len()).sum();
        prop_assert_eq!(taken, sent + waiting);
    }
}
