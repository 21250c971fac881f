use std::{fs, os::unix::fs::PermissionsExt};

use tunnel_core::{
    enrolment::{ENTRIES, REDEMPTIONS},
    hello::Denial,
};

use super::*;

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

fn agent() -> AgentName {
    AgentName::new("home", "pi4").expect("names")
}

fn identity() -> AgentIdentity {
    AgentIdentity::new(agent(), "u-1", 0).expect("an identity")
}

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

fn redeem(ledger: &mut LedgerFile, key: &str) -> Result<AgentIdentity, RedeemError> {
    ledger.redeem(&print("token"), &agent(), &print(key), NOW, |_| Ok(()))
}

#[test]
fn a_redeemed_token_stays_redeemed_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = LedgerFile::open(folder.path()).expect("opened");
    ledger.issue(identity(), print("token"), 1, NOW + HOUR, NOW).expect("issued");
    assert_eq!(redeem(&mut LedgerFile::open(folder.path()).expect("opened"), "key").expect("redeemed"), identity());
    let mut again = LedgerFile::open(folder.path()).expect("opened");
    assert!(matches!(redeem(&mut again, "other"), Err(RedeemError::Refused(Refusal::Redeemed(_)))));
    assert_eq!(redeem(&mut again, "key").expect("the same key"), identity());
    let mode = fs::metadata(folder.path().join(FILE)).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_denied_or_cannot_be_kept_uses_no_token_up() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path().join("server");
    let mut ledger = LedgerFile::open(&folder).expect("opened");
    ledger.issue(identity(), print("token"), 1, NOW + HOUR, NOW).expect("issued");
    let denied = Denied { reason: Denial::Revoked, detail: "revoked".to_owned() };
    let refused = ledger.redeem(&print("token"), &agent(), &print("key"), NOW, |_| Err(denied));
    assert!(matches!(refused, Err(RedeemError::Denied(_))), "{refused:?}");
    fs::rename(&folder, temporary.path().join("away")).expect("renamed");
    assert!(matches!(redeem(&mut ledger, "key"), Err(RedeemError::Kept(LedgerError::File(_)))));
    fs::rename(temporary.path().join("away"), &folder).expect("renamed");
    redeem(&mut ledger, "another key").expect("the token is there still");
}

#[test]
fn a_damaged_or_exposed_file_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = LedgerFile::open(folder.path()).expect("opened");
    ledger.issue(identity(), print("token"), 1, NOW + HOUR, NOW).expect("issued");
    let path = folder.path().join(FILE);
    let error = || LedgerFile::open(folder.path()).expect_err("refused").to_string();
    let text = fs::read_to_string(&path).expect("read");
    for damaged in ["", &text[..text.len() - 1], "[]"] {
        fs::write(&path, damaged).expect("written");
        let error = error();
        assert!(error.contains(FILE) && error.contains("restore the file"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let error = error();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn the_largest_ledger_fits() {
    let label = "a".repeat(63);
    let uid = "u".repeat(64);
    let identity = AgentIdentity::new(AgentName::new(&label, &label).expect("names"), &uid, u32::MAX);
    let identity = identity.expect("an identity");
    let mut ledger = Ledger::default();
    ledger.set_root(print("root"));
    let token = print("token");
    let now = u64::MAX - HOUR;
    ledger.issue(identity.clone(), token, REDEMPTIONS, u64::MAX, now).expect("issued");
    for key in 0..REDEMPTIONS {
        ledger.redeem(&token, identity.agent(), &print(&key.to_string()), now).expect("redeemed");
    }
    let one = serde_json::to_vec(&ledger).expect("written").len();
    assert!(u64::try_from(one * ENTRIES).expect("small") < MOST, "{one}");
}
