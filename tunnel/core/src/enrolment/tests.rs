use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

fn agent(name: &str) -> AgentName {
    AgentName::new("home", name).expect("names")
}

fn identity(name: &str) -> AgentIdentity {
    AgentIdentity::new(agent(name), "u-1", 2).expect("an identity")
}

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

fn issued(redemptions: u32) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.issue(identity("pi4"), print("token"), redemptions, NOW + HOUR, NOW).expect("issued");
    ledger
}

#[test]
fn a_ledger_is_empty_until_a_token_is_issued() {
    assert!(Ledger::default().is_empty() && !issued(1).is_empty());
}

#[test]
fn a_token_enrols_its_agent_once() {
    let mut ledger = issued(1);
    let grant = ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("granted");
    assert_eq!(grant, Grant { identity: identity("pi4"), again: false });
    let thief = ledger.redeem(&print("token"), &agent("pi4"), &print("other key"), NOW);
    assert_eq!(thief, Err(Refusal::Redeemed(agent("pi4"))));
}

#[test]
fn an_agent_that_lost_the_answer_redeems_again_with_the_same_key_until_the_expiry() {
    let mut ledger = issued(1);
    ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("granted");
    let before = ledger.clone();
    let again = ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW + HOUR - 1).expect("granted");
    assert_eq!(again, Grant { identity: identity("pi4"), again: true });
    assert_eq!(ledger, before, "the second time changes nothing");
    let late = ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW + HOUR);
    assert_eq!(late, Err(Refusal::Expired(agent("pi4"))));
}

#[test]
fn each_refusal_has_its_reason() {
    let mut ledger = issued(1);
    let mut redeem = |token, name, now| ledger.redeem(&print(token), &agent(name), &print("key"), now);
    assert_eq!(redeem("another", "pi4", NOW), Err(Refusal::Unknown));
    assert_eq!(redeem("token", "pi5", NOW), Err(Refusal::OtherAgent(agent("pi5"))));
    assert_eq!(redeem("token", "pi4", NOW + HOUR), Err(Refusal::Expired(agent("pi4"))));
    assert!(redeem("token", "pi4", NOW).is_ok(), "refusals use nothing up");
    assert_eq!(ledger.revoke(&agent("pi5"), NOW), 0);
    assert!(ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).is_ok(), "another agent was revoked");
    ledger.revoke(&agent("pi4"), NOW);
    let revoked = ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW);
    assert_eq!(revoked, Err(Refusal::Revoked(agent("pi4"))));
}

#[test]
fn revocation_counts_the_tokens_that_could_be_redeemed() {
    let mut ledger = issued(1);
    ledger.issue(identity("pi4"), print("second"), 1, NOW + HOUR, NOW).expect("issued");
    ledger.issue(identity("pi4"), print("short"), 1, NOW + 1, NOW).expect("issued");
    ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("granted");
    assert_eq!(ledger.revoke(&agent("pi4"), NOW + 1), 1);
    assert_eq!(ledger.revoke(&agent("pi4"), NOW + 1), 0);
}

#[test]
fn a_token_is_issued_within_its_bounds() {
    let mut ledger = issued(1);
    for redemptions in [0, REDEMPTIONS + 1] {
        let refused = ledger.issue(identity("pi4"), print("next"), redemptions, NOW + HOUR, NOW);
        assert_eq!(refused, Err(IssueError::Redemptions(redemptions)));
    }
    assert_eq!(ledger.issue(identity("pi5"), print("token"), 1, NOW + HOUR, NOW), Err(IssueError::Again));
}

#[test]
fn a_token_is_live_for_its_identity_until_it_has_expired_is_used_up_or_is_revoked() {
    let mut ledger = issued(2);
    let is_live = |ledger: &Ledger, now| ledger.is_live(&print("token"), &identity("pi4"), now);
    assert!(is_live(&ledger, NOW + HOUR - 1) && !is_live(&ledger, NOW + HOUR));
    assert!(
        !ledger.is_live(&print("token"), &identity("pi5"), NOW) && !ledger.is_live(&print("t"), &identity("pi4"), NOW)
    );
    for (key, left) in [("key", true), ("other key", false)] {
        ledger.redeem(&print("token"), &agent("pi4"), &print(key), NOW).expect("granted");
        assert_eq!(is_live(&ledger, NOW), left, "after {key}");
    }
    let mut revoked = issued(1);
    revoked.revoke(&agent("pi4"), NOW);
    assert!(!is_live(&revoked, NOW));
}

#[test]
fn of_the_expired_tokens_of_a_full_ledger_the_oldest_gives_way() {
    let mut ledger = Ledger::default();
    for number in 0..ENTRIES {
        let expires = match number {
            3 => NOW + 2,
            7 => NOW + 1,
            _ => NOW + HOUR,
        };
        ledger.issue(identity("pi4"), print(&number.to_string()), 1, expires, NOW).expect("issued");
    }
    ledger.issue(identity("pi4"), print("next"), 1, NOW + HOUR, NOW + 2).expect("one gave way");
    let mut redeem = |token| ledger.redeem(&print(token), &agent("pi4"), &print("key"), NOW + 2);
    assert_eq!(redeem("7"), Err(Refusal::Unknown));
    assert_eq!(redeem("3"), Err(Refusal::Expired(agent("pi4"))));
}

#[test]
fn a_full_ledger_forgets_what_is_over_and_nothing_else() {
    let mut ledger = Ledger::default();
    let issue = |ledger: &mut Ledger, number: usize, expires| {
        ledger.issue(identity("pi4"), print(&number.to_string()), 1, expires, NOW)
    };
    for number in 0..ENTRIES {
        let expires = if number == 7 { NOW } else { NOW + HOUR };
        issue(&mut ledger, number, expires).expect("issued");
    }
    issue(&mut ledger, ENTRIES, NOW + HOUR).expect("the expired one gave way");
    assert_eq!(ledger.len(), ENTRIES);
    assert_eq!(ledger.redeem(&print("7"), &agent("pi4"), &print("key"), NOW), Err(Refusal::Unknown));
    assert_eq!(issue(&mut ledger, ENTRIES + 1, NOW + HOUR), Err(IssueError::Full));
    ledger.revoke(&agent("pi4"), NOW);
    issue(&mut ledger, ENTRIES + 1, NOW + HOUR).expect("a revoked one gave way");
}

#[test]
fn tokens_that_enrolled_somebody_are_remembered_longer_than_others() {
    let mut ledger = Ledger::default();
    ledger.issue(identity("pi4"), print("used"), 1, NOW + 1, NOW).expect("issued");
    ledger.redeem(&print("used"), &agent("pi4"), &print("key"), NOW).expect("granted");
    for number in 1..ENTRIES {
        ledger.issue(identity("pi4"), print(&number.to_string()), 1, NOW + HOUR, NOW).expect("issued");
    }
    let later = NOW + 2 * HOUR;
    ledger.issue(identity("pi4"), print("last"), 1, later + HOUR, later).expect("one that is over gave way");
    assert_eq!((ledger.len(), ledger.enrolled(&identity("pi4"))), (ENTRIES, 1));
}

#[test]
fn a_ledger_that_is_pruned_remembers_a_day_and_who_has_enrolled() {
    let mut ledger = issued(1);
    ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("granted");
    for (token, expires) in [("old", NOW + HOUR), ("late", NOW + 2 * HOUR)] {
        ledger.issue(identity("pi4"), print(token), 1, expires, NOW).expect("issued");
    }
    let other = AgentIdentity::new(agent("pi4"), "u-1", 1).expect("an identity");
    ledger.issue(other.clone(), print("earlier"), 1, NOW + HOUR, NOW).expect("issued");
    ledger.redeem(&print("earlier"), &agent("pi4"), &print("key"), NOW).expect("granted");
    let day_after = NOW + 25 * HOUR;
    ledger.prune(&identity("pi4"), day_after - 1);
    assert_eq!(ledger.len(), 4, "a day is not over");
    ledger.prune(&identity("pi4"), day_after);
    assert_eq!((ledger.enrolled(&identity("pi4")), ledger.enrolled(&other)), (1, 0));
    let mut redeem = |token| ledger.redeem(&print(token), &agent("pi4"), &print("key"), day_after);
    assert_eq!(redeem("old"), Err(Refusal::Unknown));
    assert_eq!(redeem("late"), Err(Refusal::Expired(agent("pi4"))));
}

#[test]
fn a_token_that_was_issued_while_the_clock_was_ahead_counts_for_nothing_and_is_forgotten() {
    let mut ledger = issued(1);
    let ahead = NOW + 365 * 24 * HOUR;
    ledger.issue(identity("pi4"), print("ahead"), 1, ahead + HOUR, ahead).expect("issued");
    assert!(ledger.is_live(&print("ahead"), &identity("pi4"), ahead));
    assert!(!ledger.is_live(&print("ahead"), &identity("pi4"), NOW), "another one takes its place");
    let refused = ledger.redeem(&print("ahead"), &agent("pi4"), &print("key"), NOW);
    assert_eq!(refused, Err(Refusal::Expired(agent("pi4"))));
    ledger.issue(identity("pi4"), print("longest"), 1, NOW + LONGEST, NOW).expect("issued");
    ledger.prune(&identity("pi4"), NOW);
    assert_eq!(ledger.len(), 2);
    assert!(ledger.redeem(&print("longest"), &agent("pi4"), &print("key"), NOW).is_ok());
}

#[test]
fn a_ledger_counts_whom_the_present_root_has_enrolled() {
    let mut ledger = issued(1);
    ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("granted");
    assert!(!ledger.set_root(print("root")), "it is the first root that the ledger hears of");
    assert!(!ledger.set_root(print("root")));
    let text = serde_json::to_string(&ledger).expect("written");
    let mut ledger: Ledger = serde_json::from_str(&text).expect("read");
    assert_eq!(ledger.enrolled(&identity("pi4")), 1);
    assert!(ledger.set_root(print("other root")));
    assert_eq!(ledger.enrolled(&identity("pi4")), 0);
    ledger.issue(identity("pi4"), print("second"), 1, NOW + HOUR, NOW).expect("issued");
    ledger.redeem(&print("second"), &agent("pi4"), &print("key"), NOW).expect("granted");
    ledger.prune(&identity("pi4"), NOW + 48 * HOUR);
    assert_eq!((ledger.enrolled(&identity("pi4")), ledger.len()), (1, 2));
    assert!(ledger.set_root(print("root")));
    ledger.redeem(&print("token"), &agent("pi4"), &print("key"), NOW).expect("the root was restored");
    assert_eq!(ledger.enrolled(&identity("pi4")), 1);
}

#[test]
fn the_kept_ledger_holds_no_token_and_is_read_again() {
    let token = crate::join::Token::new([0xa7; 32]);
    let mut ledger = Ledger::default();
    ledger.issue(identity("pi4"), token.fingerprint(), 2, NOW + HOUR, NOW).expect("issued");
    ledger.redeem(&token.fingerprint(), &agent("pi4"), &print("key"), NOW).expect("granted");
    let text = serde_json::to_string(&ledger).expect("written");
    assert!(text.contains("portlane://agent/home/pi4/u-1?rotation=2"), "{text}");
    assert!(text.contains("\"redemptionsLeft\":1"), "{text}");
    assert!(!text.contains("a7a7"), "{text} holds the token");
    assert_eq!(serde_json::from_str::<Ledger>(&text).expect("read"), ledger);
    let damaged = text.replace("home/pi4", "home/../pi4");
    assert!(serde_json::from_str::<Ledger>(&damaged).is_err(), "names are checked when they are read");
}

proptest! {
    #[test]
    fn a_token_never_enrols_more_keys_than_it_may(
        redemptions in 1..=REDEMPTIONS,
        keys in proptest::collection::vec(0_u32..200, 0..300),
    ) {
        let mut ledger = issued(redemptions);
        let mut enrolled = std::collections::BTreeSet::new();
        for key in keys {
            let granted = ledger.redeem(&print("token"), &agent("pi4"), &print(&key.to_string()), NOW);
            let room = enrolled.len() < usize::try_from(redemptions).expect("small");
            prop_assert_eq!(granted.is_ok(), room || enrolled.contains(&key));
            if granted.is_ok() {
                enrolled.insert(key);
            }
        }
    }
}
