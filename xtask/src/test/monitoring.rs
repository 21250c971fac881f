//! Alerts and dashboards of the chart, as texts: each alert has a case and a section to read, and each metric is one that
//! a program has. `tests/tests/peers/monitoring.rs` runs both with Prometheus.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::pages::{anchors, root};

const RULES: &str = "charts/portlane/monitoring/rules.yaml";
const CASES: &str = "tests/tests/peers/monitoring/alerts.yaml";
const DASHBOARDS: [&str; 2] = ["charts/portlane/monitoring/overview.json", "charts/portlane/monitoring/forward.json"];
/// The list of all metrics, which tests of operator and proxy compare with the served ones.
const METRICS: &str = "docs/metrics.md";
/// The page that alerts link to.
const RUNBOOK: &str = "docs/troubleshooting.md";
/// The address of the page, for readers of an alert.
const ADDRESS: &str = "https://github.com/portlane/portlane/blob/main/docs/troubleshooting.md#";

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect("a file of the repository")
}

/// Returns the values of this key in YAML.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect()
}

/// The anchor of each alert.
fn runbooks(rules: &str) -> BTreeMap<String, String> {
    let alerts = values(rules, "alert:").into_iter().map(str::to_owned);
    let anchors =
        values(rules, "runbook_url:").into_iter().map(|url| url.strip_prefix(ADDRESS).expect(ADDRESS).to_owned());
    let runbooks: BTreeMap<String, String> = alerts.zip(anchors).collect();
    assert!(runbooks.len() > 20, "too few alerts are found: {runbooks:?}");
    runbooks
}

/// The metrics that a text names, without the suffixes of a histogram.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let names = words.filter(|word| word.starts_with("portlane_"));
    names
        .map(|name| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
        })
        .collect()
}

#[test]
fn every_alert_has_one_case_and_one_section() {
    let rules = read(RULES);
    let alerts = values(&rules, "alert:");
    let runbooks = runbooks(&rules);
    assert_eq!((alerts.len(), values(&rules, "runbook_url:").len()), (runbooks.len(), runbooks.len()), "one each");
    let cases = read(CASES);
    let cases: Vec<&str> = values(&cases, "name:");
    assert_eq!(cases, alerts, "{CASES} has one case for each alert, in the order of {RULES}");
    let page = read(RUNBOOK);
    let sections = anchors(&page);
    for (alert, anchor) in &runbooks {
        assert!(sections.contains(anchor), "{alert} links to #{anchor}, which {RUNBOOK} lacks");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{alert}` |")));
        assert!(
            row.is_some_and(|row| row.contains(&format!("](#{anchor})"))),
            "{RUNBOOK} has no row {alert}, or another link"
        );
    }
}

#[test]
fn alerts_and_dashboards_use_metrics_that_exist() {
    let exist: BTreeSet<String> = read(METRICS)
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert!(exist.len() > 60, "too few metrics are found: {exist:?}");
    for file in DASHBOARDS.into_iter().chain([RULES, CASES]) {
        let named = metrics(&read(file));
        assert!(!named.is_empty(), "{file}");
        let unknown: Vec<&String> = named.difference(&exist).collect();
        assert!(unknown.is_empty(), "{file} uses metrics that {METRICS} lacks: {unknown:?}");
    }
}

#[test]
fn every_label_of_a_metric_is_explained_and_every_explained_label_is_used() {
    let page = read(METRICS);
    let (labels, metrics) = page.split_once("\n## Operator\n").expect("a section of the labels comes first");
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let of_rows = |text: &str, start: &str, cell: usize| -> BTreeSet<String> {
        let rows = text.lines().filter(|line| line.starts_with(start));
        rows.filter_map(|row| row.split('|').nth(cell)).flat_map(quoted).collect()
    };
    let (explained, used) = (of_rows(labels, "| `", 1), of_rows(metrics, "| `portlane_", 3));
    assert!(used.len() > 10, "too few labels are found: {used:?}");
    // A label that names a client or an endpoint has no bound.
    assert_eq!(used, explained, "labels of metrics, and labels that {METRICS} explains");
}

#[test]
fn what_is_grouped_by_forward_is_grouped_by_its_kind_too() {
    let files = DASHBOARDS.into_iter().chain([RULES]);
    let of_file = |file| groupings(&read(file)).into_iter().map(|labels| (file, labels)).collect::<Vec<_>>();
    let found: Vec<(&str, Vec<String>)> =
        files.flat_map(of_file).filter(|(_, labels)| has(labels, "forward")).collect();
    assert!(found.len() > 10, "too few groupings are found: {found:?}");
    // Objects of different kinds may have the same name.
    let without: Vec<_> =
        found.iter().filter(|(_, labels)| !has(labels, "kind") || !has(labels, "namespace")).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn a_grouping_has_the_labels_in_its_brackets() {
    let text = "sum by (a, b) (x{by=\"c\"}) / on (a) max by(a)(y) without (b)";
    assert_eq!(groupings(text), [vec!["a", "b"], vec!["a"]]);
}

/// The labels of each `by (...)` of a text.
fn groupings(text: &str) -> Vec<Vec<String>> {
    let after = text.split(" by").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('('));
    let labels = after.filter_map(|rest| Some(rest.split_once(')')?.0));
    labels.map(|labels| labels.split(',').map(|label| label.trim().to_owned()).collect()).collect()
}

fn has(labels: &[String], label: &str) -> bool {
    labels.iter().any(|other| other == label)
}
