//! `ForwardAgent`s. Their `Ready` is no list of conditions: an instance that is connected needs no join string.

use serde_json::Value;

use crate::{
    GENERATION, condition,
    kstatus::kstatus,
    lua::Script,
    object,
    page::{Expected, Row, expected, rows},
};

const KIND: &str = "ForwardAgent";

/// `Accepted`, `Enrolled` and `Connected` of an agent.
type Main<'a> = [&'a Row; 3];

/// Every combination that the operator writes.
fn combinations(rows: &[Row]) -> Vec<Main<'_>> {
    let [accepted, enrolled, connected] = ["Accepted", "Enrolled", "Connected"].map(|type_| {
        let choices: Vec<&Row> = rows.iter().filter(|row| row.type_ == type_).collect();
        assert!(choices.len() > 1, "docs/conditions.md has no rows of {type_}");
        choices
    });
    let mut all = Vec::new();
    for accepted in &accepted {
        for enrolled in &enrolled {
            all.extend(connected.iter().map(|connected| [*accepted, *enrolled, *connected]));
        }
    }
    all.retain(|main| is_written(*main));
    all
}

fn is_written([accepted, enrolled, connected]: Main<'_>) -> bool {
    let is_refused = |row: &Row| row.reason == "NotAccepted";
    if accepted.status != "True" {
        return is_refused(connected);
    }
    let suspended = [accepted, connected].map(|row| row.reason == "Suspended");
    !is_refused(enrolled) && !is_refused(connected) && suspended[0] == suspended[1]
}

/// Status and reason of `Ready`.
fn ready([accepted, enrolled, connected]: Main<'_>) -> (&str, &str) {
    let unmet = if accepted.status != "True" {
        accepted
    } else if accepted.reason == "Suspended" {
        return ("True", "Suspended");
    } else if connected.status == "True" {
        return ("True", "Ready");
    } else if enrolled.status == "True" {
        connected
    } else {
        enrolled
    };
    (unmet.status.as_str(), unmet.reason.as_str())
}

/// All conditions of a combination, and the row of `docs/gitops.md` for it.
fn summary<'a>(main: Main<'_>, expected: &'a [Expected]) -> (Vec<Value>, &'a Expected) {
    let (status, reason) = ready(main);
    let row = expected.iter().find(|row| row.status == status && row.reason == reason);
    let row = row.unwrap_or_else(|| panic!("docs/gitops.md has no row for Ready={status} {reason}"));
    let mut conditions: Vec<Value> = main.iter().map(|row| condition(&row.type_, &row.status, &row.reason)).collect();
    conditions.push(condition("Ready", status, reason));
    if status == "Unknown" {
        conditions.push(condition("Reconciling", "True", reason));
    }
    if row.kstatus == "Failed" {
        conditions.push(condition("Stalled", "True", reason));
    }
    (conditions, row)
}

#[test]
fn every_combination_of_conditions_of_an_agent_has_the_health_of_the_page() {
    let (rows, expected) = (rows(KIND), expected(KIND));
    let script = Script::of(KIND, "health.lua");
    let all = combinations(&rows);
    assert!(all.len() > 30, "only {} combinations: is docs/conditions.md read in full?", all.len());
    for main in all {
        let (conditions, row) = summary(main, &expected);
        let case = main.map(Row::words).join(", ");
        let current = object(KIND, GENERATION, &conditions);
        assert_eq!(script.health(&current).status, row.health, "{case}");
        assert_eq!(kstatus(&current), row.kstatus, "{case}");
        let old = object(KIND, GENERATION - 1, &conditions);
        assert_eq!((script.health(&old).status.as_str(), kstatus(&old)), ("Progressing", "InProgress"), "{case}");
    }
}

#[test]
fn every_row_of_the_page_is_the_health_of_a_combination_of_an_agent() {
    let (rows, expected) = (rows(KIND), expected(KIND));
    let all = combinations(&rows);
    for row in &expected {
        let is_met = all.iter().any(|main| ready(*main) == (row.status.as_str(), row.reason.as_str()));
        assert!(is_met, "no agent has the row of docs/gitops.md for {} {}", row.status, row.reason);
    }
}
