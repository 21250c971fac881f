//! The text of `lag`.

use std::collections::BTreeSet;

use crate::{
    lag::{Figures, Listener, Report},
    time::age,
    units,
};

use super::{
    Look, notes, printable,
    text::{Column, fitted},
};

const COLUMNS: [Column<'_>; 6] =
    [("LISTENER", 0), ("POD", 1), ("OLDEST", 0), ("BACKLOG", 0), ("DELIVERY", 0), ("LOG", 1)];
const WIDE: [Column<'_>; 6] =
    [("RECEIVED", 2), ("DELIVERED", 2), ("RESENT", 3), ("DROPPED", 3), ("DEAD LETTERS", 3), ("PROXIES", 2)];

/// The report as text. Columns that no listener has are left out.
pub fn lag(report: &Report, look: Look) -> String {
    let mut text = String::new();
    if !report.listeners.is_empty() {
        let head: Vec<Column<'_>> = COLUMNS.into_iter().chain(WIDE.into_iter().filter(|_| look.is_wide)).collect();
        let rows: Vec<(String, Vec<String>)> =
            report.listeners.iter().map(|listener| (" ".to_owned(), cells(listener))).collect();
        text.push_str(&fitted(&head, &rows, 0, look.width));
        text.push('\n');
    }
    text.push_str(&format!("{}\n", sum(&report.listeners)));
    text.push_str(&notes(&report.notes, look));
    text
}

/// All of them in one line.
fn sum(listeners: &[Listener]) -> String {
    // Several proxies may have one.
    let names: BTreeSet<&str> = listeners.iter().map(|listener| listener.listener.as_str()).collect();
    let all = units::count(names.len() as u64, "durable listener");
    if listeners.iter().any(|listener| listener.figures.is_none()) {
        let others = listeners.iter().filter(|listener| listener.delivery != "Flowing");
        let others: BTreeSet<&str> = others.map(|listener| listener.listener.as_str()).collect();
        return format!("{all}, {} not Flowing", others.len());
    }
    let waiting = listeners.iter().filter_map(|listener| listener.figures.as_ref()).map(|figures| figures.backlog);
    format!("{all}, {} not delivered", units::count(waiting.fold(0, u64::saturating_add), "message"))
}

fn cells(listener: &Listener) -> Vec<String> {
    let figure = |value: fn(&Figures) -> String| listener.figures.as_ref().map(value).unwrap_or_default();
    vec![
        printable(&listener.listener),
        printable(listener.pod.as_deref().unwrap_or_default()),
        figure(oldest),
        figure(|figures| figures.backlog.to_string()),
        printable(&listener.delivery),
        figure(|figures| units::bytes(figures.log_bytes)),
        figure(|figures| figures.received.to_string()),
        figure(|figures| figures.delivered.to_string()),
        figure(|figures| figures.resent.to_string()),
        figure(|figures| figures.dropped.to_string()),
        figure(|figures| figures.dead_lettered.to_string()),
        printable(listener.proxies.as_deref().unwrap_or_default()),
    ]
}

fn oldest(figures: &Figures) -> String {
    match figures.backlog {
        0 => "-".to_owned(),
        _ => age(i64::try_from(figures.oldest_seconds).unwrap_or(i64::MAX)),
    }
}
