//! The text of `lag`.

use std::collections::BTreeSet;

use crate::{
    lag::{Figures, Listener, Report},
    time::age,
    units,
};

use super::{
    INDENT, Look, notes, printable,
    text::{Column, fitted, wrapped},
};

const COLUMNS: [Column<'_>; 6] =
    [("LISTENER", 0), ("POD", 1), ("OLDEST", 0), ("BACKLOG", 0), ("DELIVERY", 0), ("LOG", 1)];
const WIDE: [Column<'_>; 7] = [
    ("RECEIVED", 2),
    ("DELIVERED", 2),
    ("RESENT", 3),
    ("DROPPED", 3),
    ("DEAD LETTERS", 3),
    ("LANES", 3),
    ("PROXIES", 2),
];
/// Most listeners whose problems the text describes.
const FAULTY: usize = 10;

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
    text.push_str(&faults(&report.listeners, look));
    text.push_str(&notes(&report.notes, look));
    text
}

/// The sum of all listeners in one line.
fn sum(listeners: &[Listener]) -> String {
    // Several proxies may run one listener.
    let names: BTreeSet<&str> = listeners.iter().map(|listener| listener.listener.as_str()).collect();
    let all = units::count(names.len() as u64, "durable listener");
    let figures: Vec<&Figures> = listeners.iter().filter_map(|listener| listener.figures.as_ref()).collect();
    if figures.is_empty() && !listeners.is_empty() {
        let others = listeners.iter().filter(|listener| listener.delivery != "Flowing");
        let others: BTreeSet<&str> = others.map(|listener| listener.listener.as_str()).collect();
        return format!("{all}, {} not Flowing", others.len());
    }
    let waiting = figures.iter().map(|figures| figures.backlog).fold(0, u64::saturating_add);
    let least = if figures.len() < listeners.len() { "at least " } else { "" };
    format!("{all}, {least}{} not delivered", units::count(waiting, "message"))
}

/// The reasons why messages wait, and why others were dropped, of listeners that have either.
fn faults(listeners: &[Listener], look: Look) -> String {
    let (mut text, mut beyond) = (String::new(), 0);
    let faulty =
        listeners.iter().map(|listener| (listener, faults_of(listener))).filter(|(_, lines)| !lines.is_empty());
    for (at, (listener, lines)) in faulty.enumerate() {
        if at >= FAULTY {
            beyond += 1;
            continue;
        }
        let name = [Some(listener.listener.as_str()), listener.pod.as_deref()].into_iter().flatten();
        let name: Vec<String> = name.map(printable).collect();
        text.push_str(&format!("{}{}\n", " ".repeat(INDENT), name.join("  ")));
        for line in lines {
            let margin = 2 * INDENT;
            text.push_str(&format!("{}{}\n", " ".repeat(margin), wrapped(&printable(&line), margin, look.width)));
        }
    }
    if beyond > 0 {
        let more = format!("and {} more: -o json has all", units::count(beyond, "listener"));
        text.push_str(&format!("{}{more}\n", " ".repeat(INDENT)));
    }
    if text.is_empty() { text } else { format!("\n{}\n{text}", look.title("Errors and dropped messages")) }
}

fn faults_of(Listener { delivery, figures, .. }: &Listener) -> Vec<String> {
    let Some(figures) = figures else { return Vec::new() };
    let mut lines = Vec::new();
    // Nothing needs an explanation while messages flow: a sink may close a connection that it does not need.
    if !figures.error.is_empty() && (delivery != "Flowing" || figures.backlog > 0) {
        lines.push(format!("error: {}", figures.error));
    }
    if figures.dropped > 0 {
        let reasons = figures.dropped_by_reason.iter().map(|(reason, count)| format!("{count} {reason}"));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let all = if reasons.is_empty() { figures.dropped.to_string() } else { reasons };
        lines.push(format!("dropped: {all}"));
    }
    lines
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
        figure(lanes),
        printable(listener.proxies.as_deref().unwrap_or_default()),
    ]
}

fn oldest(figures: &Figures) -> String {
    match figures.backlog {
        0 => "-".to_owned(),
        _ => age(i64::try_from(figures.oldest_seconds).unwrap_or(i64::MAX)),
    }
}

/// The number of lanes; empty for a process that does not report it.
fn lanes(figures: &Figures) -> String {
    if figures.lanes == 0 { String::new() } else { figures.lanes.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faults_of_ten_listeners_are_told_and_the_others_counted() {
        let listener = |at: usize| Listener {
            listener: format!("shop/logs/l{at:02}"),
            figures: Some(Figures { dropped: 3, ..Figures::default() }),
            ..Listener::default()
        };
        let report = Report { listeners: (0..12).map(listener).collect(), notes: Vec::new() };
        let text = lag(&report, Look::default());
        assert_eq!(text.matches("dropped: 3\n").count(), FAULTY, "{text}");
        assert!(text.ends_with("\n  and 2 listeners more: -o json has all\n"), "{text}");
    }
}
