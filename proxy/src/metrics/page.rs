//! `docs/metrics.md` lists the metrics of a proxy, with their types and help.

use std::collections::BTreeSet;

use super::Metrics;
use crate::{fixtures::process, settings::Settings};

const PAGE: &str = include_str!("../../../docs/metrics.md");
/// The section of the page.
const SECTION: &str = "\n## Proxies\n";

/// Name, type and help of a metric.
type Row = [String; 3];

/// The metrics of a scrape. Counters have their suffix.
fn served(text: &str) -> BTreeSet<Row> {
    let mut lines = text.lines();
    let mut rows = BTreeSet::new();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else { continue };
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).expect("a type follows");
        let suffix = if kind == "counter" { "_total" } else { "" };
        rows.insert([format!("{name}{suffix}"), kind.to_owned(), help.to_owned()]);
    }
    rows
}

/// The rows of the section: `NAME` | type | labels | help.
fn listed() -> BTreeSet<Row> {
    let (_, section) = PAGE.split_once(SECTION).expect(SECTION);
    let section = section.split("\n## ").next().unwrap_or_default();
    let row = |line: &str| -> Option<Row> {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let [name, kind, _, help, _] = cells[..] else { return None };
        Some([name.trim_end_matches('`'), kind, help].map(str::to_owned))
    };
    section.lines().filter_map(row).collect()
}

#[test]
fn the_page_lists_every_metric_of_a_proxy_and_no_others() {
    // With a limit of sessions, which has a metric.
    let settings = Settings { max_sessions: 4, ..Settings::default() };
    let served = served(&Metrics::new(process(&settings, None)).text().expect("a text"));
    let listed = listed();
    let missing: Vec<_> = served.difference(&listed).collect();
    let unknown: Vec<_> = listed.difference(&served).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:#?}; on the page only: {unknown:#?}");
}
