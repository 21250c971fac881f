//! `docs/protocols.md` and the tests that it names.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{collections::BTreeSet, fs, path::Path};

const PAGE: &str = include_str!("../../../docs/protocols.md");
/// Files with a test for each row.
const PROTOCOLS: [&str; 7] = ["files", "messaging", "network", "relp", "remote", "sql", "web"];

/// The tests that a text names, as `module::function` in backticks.
fn named(text: &str) -> BTreeSet<String> {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let is_test = |code: &&str| code.split_once("::").is_some_and(|(module, test)| is_word(module) && is_word(test));
    text.split('`').filter(is_test).map(str::to_owned).collect()
}

/// The tests of a file.
fn tests(module: &str) -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/peers/{module}.rs"));
    let source = fs::read_to_string(&file).expect("a module");
    let after = source.split("#[test]\nfn ").skip(1);
    after.filter_map(|rest| rest.split_once('(')).map(|(name, _)| format!("{module}::{name}")).collect()
}

/// The verdicts of the page, the last cells of their rows.
fn verdicts() -> Vec<&'static str> {
    let mut is_table = false;
    let mut found = Vec::new();
    for line in PAGE.lines() {
        let cell = line.strip_suffix('|').and_then(|row| row.rsplit('|').next()).map(str::trim);
        match cell {
            None => is_table = false,
            Some("verdict") => is_table = true,
            Some(cell) if is_table && cell != "---" => found.push(cell),
            Some(_) => {}
        }
    }
    found
}

fn is_wrong(verdict: &&str) -> bool {
    let is_known = ["works", "does not pass", "not tested"].iter().any(|word| verdict.starts_with(word));
    !is_known || named(verdict).is_empty() != verdict.contains("not tested")
}

#[test]
fn every_verdict_names_a_test_or_says_that_there_is_none() {
    let verdicts = verdicts();
    assert!(verdicts.len() > 30, "the tables have another form: {verdicts:#?}");
    let wrong: Vec<&str> = verdicts.into_iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_page_names_tests_that_exist_and_all_tests_of_protocols() {
    let named = named(PAGE);
    let modules = named.iter().filter_map(|test| test.split_once("::")).map(|(module, _)| module);
    let existing: BTreeSet<String> = modules.collect::<BTreeSet<_>>().into_iter().flat_map(tests).collect();
    let missing: Vec<&String> = named.difference(&existing).collect();
    assert!(missing.is_empty(), "named, but no test: {missing:#?}");
    let all: BTreeSet<String> = PROTOCOLS.into_iter().flat_map(tests).collect();
    let unnamed: Vec<&String> = all.difference(&named).collect();
    assert!(unnamed.is_empty(), "tested, but not on the page: {unnamed:#?}");
}
