//! The text of `lag`.

use crate::{
    lag::{Listener, Report},
    time::age,
    units,
};

use super::{
    Look, notes, printable,
    text::{Column, fitted},
};

const COLUMNS: [Column<'_>; 5] = [("LISTENER", 0), ("OLDEST", 0), ("BACKLOG", 0), ("DELIVERY", 0), ("LOG", 1)];
const WIDE: [Column<'_>; 5] = [("RECEIVED", 2), ("DELIVERED", 2), ("RESENT", 3), ("DROPPED", 3), ("DEAD LETTERS", 3)];

/// The report as text.
pub fn lag(report: &Report, look: Look) -> String {
    let mut text = String::new();
    if !report.listeners.is_empty() {
        let head: Vec<Column<'_>> = COLUMNS.into_iter().chain(WIDE.into_iter().filter(|_| look.is_wide)).collect();
        let rows: Vec<(String, Vec<String>)> =
            report.listeners.iter().map(|listener| (" ".to_owned(), cells(listener))).collect();
        text.push_str(&fitted(&head, &rows, 0, look.width));
        text.push('\n');
    }
    let waiting = report.listeners.iter().map(|listener| listener.backlog).fold(0, u64::saturating_add);
    let listeners = units::count(report.listeners.len() as u64, "durable listener");
    text.push_str(&format!("{listeners}, {} not delivered\n", units::count(waiting, "message")));
    text.push_str(&notes(&report.notes, look));
    text
}

fn cells(listener: &Listener) -> Vec<String> {
    let oldest = match listener.backlog {
        0 => "-".to_owned(),
        _ => age(i64::try_from(listener.oldest_seconds).unwrap_or(i64::MAX)),
    };
    vec![
        printable(&listener.listener),
        oldest,
        listener.backlog.to_string(),
        printable(&listener.delivery),
        units::bytes(listener.log_bytes),
        listener.received.to_string(),
        listener.delivered.to_string(),
        listener.resent.to_string(),
        listener.dropped.to_string(),
        listener.dead_lettered.to_string(),
    ]
}
