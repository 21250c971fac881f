//! Health of `PortForward`s, `ForwardGateway`s and `ForwardAgent`s: the scripts for Argo CD, run by a real Lua, and the rules of kstatus, over
//! every combination of conditions that `docs/conditions.md` allows. `docs/gitops.md` says what each must give.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

mod agents;
mod kstatus;
mod lua;
mod page;
mod scripts;

use serde_json::{Value, json};

use self::{
    kstatus::kstatus,
    lua::{Health, Script},
    page::{Expected, Row, expected, rows},
};

/// The generation of every object here.
const GENERATION: i64 = 4;
/// Reasons of `Programmed` of an object that is not accepted: `Ready` never has them.
const NOT_ACCEPTED: [&str; 2] = ["NotAccepted", "Unsupported"];

/// A condition as status has it.
fn condition(type_: &str, status: &str, reason: &str) -> Value {
    let message = format!("the message of {type_}");
    json!({"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": GENERATION})
}

/// An object with these conditions, seen by the operator at this generation.
fn object(kind: &str, observed: i64, conditions: &[Value]) -> Value {
    json!({
        "apiVersion": "portlane.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "generation": GENERATION},
        "spec": {},
        "status": {"observedGeneration": observed, "conditions": conditions},
    })
}

/// All conditions of a combination, as the operator composes them: `Ready`, and what is present only while true. With
/// them the row of the page for this `Ready`; while proxies have not reported, kstatus waits whatever the row says.
fn summary(main: &[&Row], expected: &[Expected]) -> (Vec<Value>, Expected) {
    let unmet = main.iter().find(|row| row.status != "True");
    let programmed = main.last().expect("Programmed is the last");
    let (status, reason) = match unmet {
        // Only a missing answer of the proxies leaves Ready open.
        Some(row) if row.status == "Unknown" => ("Unknown", row.reason.as_str()),
        Some(row) => ("False", row.reason.as_str()),
        None if programmed.reason == "Programmed" => ("True", "Ready"),
        None => ("True", programmed.reason.as_str()),
    };
    let row = expected.iter().find(|row| row.status == status && row.reason == reason);
    let mut row = row.unwrap_or_else(|| panic!("docs/gitops.md has no row for Ready={status} {reason}")).clone();
    let mut conditions: Vec<Value> = main.iter().map(|row| condition(&row.type_, &row.status, &row.reason)).collect();
    conditions.push(condition("Ready", status, reason));
    let is_accepted = main.first().is_some_and(|row| row.status == "True");
    let is_failed = row.kstatus == "Failed";
    if is_accepted && programmed.status == "Unknown" {
        conditions.push(condition("Reconciling", "True", &programmed.reason));
        "InProgress".clone_into(&mut row.kstatus);
    }
    if is_failed {
        conditions.push(condition("Stalled", "True", reason));
    }
    (conditions, row)
}

/// Every combination of one row for each of these conditions that the operator writes.
fn combinations<'a>(rows: &'a [Row], types: &[&str]) -> Vec<Vec<&'a Row>> {
    let mut all: Vec<Vec<&Row>> = vec![Vec::new()];
    for type_ in types {
        let choices: Vec<&Row> = rows.iter().filter(|row| row.type_ == *type_).collect();
        assert!(choices.len() > 1, "docs/conditions.md has no rows of {type_}");
        all = all
            .into_iter()
            .flat_map(|before| choices.iter().map(move |choice| [&before[..], &[*choice]].concat()))
            .collect();
    }
    let is_written = |main: &Vec<&Row>| {
        let is_accepted = main.first().is_some_and(|row| row.status == "True");
        let programmed = main.last().map(|row| row.reason.as_str()).unwrap_or_default();
        // Both conditions of a suspended forward say so.
        let suspended = main.iter().filter(|row| row.reason == "Suspended").count();
        suspended != 1 && (!is_accepted || !NOT_ACCEPTED.contains(&programmed))
    };
    all.retain(is_written);
    all
}

/// Tries every combination of a kind. `types` are the conditions that count for `Ready`, in their order.
fn every_combination(kind: &str, types: &[&str]) -> usize {
    let (rows, expected) = (rows(kind), expected(kind));
    let script = Script::of(kind, "health.lua");
    let others: Vec<&Row> =
        rows.iter().filter(|row| !types.contains(&row.type_.as_str()) && row.type_ != "Ready").collect();
    let mut tried = 0;
    for main in combinations(&rows, types) {
        let (conditions, row) = summary(&main, &expected);
        let is_stalled = conditions.iter().any(|condition| condition["type"] == "Stalled");
        let is_suspended = main.first().is_some_and(|row| row.reason == "Suspended") && !is_stalled;
        let health = if is_suspended { "Suspended" } else { row.health.as_str() };
        let case = || main.iter().map(|row| row.words()).collect::<Vec<_>>().join(", ");
        let mut check = |object: &Value, case: &str| {
            assert_eq!(script.health(object).status, health, "{kind}: {case}");
            assert_eq!(kstatus(object), row.kstatus, "{kind}: {case}");
            tried += 1;
        };
        check(&object(kind, GENERATION, &conditions), &case());
        for other in &others {
            let more = condition(&other.type_, &other.status, &other.reason);
            let all = [&conditions[..], &[more]].concat();
            check(&object(kind, GENERATION, &all), &format!("{}, {}", case(), other.words()));
        }
        let old = object(kind, GENERATION - 1, &conditions);
        assert_eq!(script.health(&old).status, "Progressing", "{kind}: {}, of an old generation", case());
        assert_eq!(kstatus(&old), "InProgress", "{kind}: {}, of an old generation", case());
    }
    tried
}

#[test]
fn every_combination_of_conditions_of_a_forward_has_the_health_of_the_page() {
    let tried = every_combination("PortForward", &["Accepted", "ResolvedRefs", "Programmed"]);
    assert!(tried > 5_000, "only {tried} combinations: is docs/conditions.md read in full?");
}

#[test]
fn every_combination_of_conditions_of_a_gateway_has_the_health_of_the_page() {
    let tried = every_combination("ForwardGateway", &["Accepted", "Programmed"]);
    assert!(tried > 10, "only {tried} combinations: is docs/conditions.md read in full?");
}

#[test]
fn every_row_of_the_page_is_the_health_of_a_combination() {
    for (kind, types) in [
        ("PortForward", &["Accepted", "ResolvedRefs", "Programmed"][..]),
        ("ForwardGateway", &["Accepted", "Programmed"][..]),
    ] {
        let (rows, expected) = (rows(kind), expected(kind));
        let met: Vec<Expected> = combinations(&rows, types).iter().map(|main| summary(main, &expected).1).collect();
        for row in &expected {
            assert!(met.contains(row), "no {kind} has the row of docs/gitops.md for {} {}", row.status, row.reason);
        }
    }
}

#[test]
fn an_object_without_a_status_or_without_ready_is_progressing() {
    for kind in ["PortForward", "ForwardGateway", "ForwardAgent"] {
        let script = Script::of(kind, "health.lua");
        let mut new = object(kind, GENERATION, &[]);
        assert_eq!(script.health(&new).status, "Progressing");
        new["status"] = json!({"conditions": [condition("Accepted", "True", "Accepted")]});
        assert_eq!(script.health(&new).status, "Progressing");
        new["status"] = json!({"conditions": [condition("Ready", "True", "Ready")]});
        assert_eq!(script.health(&new).status, "Progressing", "nothing says which generation the operator has seen");
        new.as_object_mut().expect("an object").remove("status");
        assert_eq!(script.health(&new).status, "Progressing");
    }
}

#[test]
fn a_healthy_object_says_what_is_not_as_it_should_be() {
    let ready = condition("Ready", "True", "Ready");
    let limited = condition("LimitReached", "True", "TenantLimit");
    let uninjected = condition("Injected", "False", "NotInjected");
    let forward = object("PortForward", GENERATION, &[limited, ready, uninjected]);
    let expected =
        "the message of Ready; NotInjected: the message of Injected; TenantLimit: the message of LimitReached";
    let health = Script::of("PortForward", "health.lua").health(&forward);
    assert_eq!(health, Health { status: "Healthy".to_owned(), message: expected.to_owned() });
}
