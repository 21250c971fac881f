//! The text of `conns`.

use crate::{conns::Report, live::Session, time::age, units};

use super::{
    Look, notes, printable,
    text::{Column, fitted},
};

const COLUMNS: [Column<'_>; 8] =
    [("LISTENER", 0), ("CLIENT", 0), ("ENDPOINT", 3), ("UP", 4), ("DOWN", 4), ("AGE", 2), ("PROTOCOL", 6), ("POD", 5)];
const WIDE: [Column<'_>; 3] = [("SESSION", 5), ("BACKEND", 7), ("SERVER NAME", 8)];

/// The report as text.
pub fn conns(report: &Report, look: Look) -> String {
    let mut text = String::new();
    if !report.sessions.is_empty() {
        let head: Vec<Column<'_>> = COLUMNS.into_iter().chain(WIDE.into_iter().filter(|_| look.is_wide)).collect();
        let rows: Vec<(String, Vec<String>)> =
            report.sessions.iter().map(|session| (" ".to_owned(), cells(session))).collect();
        text.push_str(&fitted(&head, &rows, 0, look.width));
        text.push('\n');
    }
    text.push_str(&format!("{}\n", summary(report)));
    text.push_str(&notes(&report.notes, look));
    text
}

fn cells(session: &Session) -> Vec<String> {
    let text = |text: Option<&str>| printable(text.unwrap_or("-"));
    vec![
        printable(&session.listener),
        printable(&session.client),
        text(session.destination()),
        units::bytes(session.bytes_up),
        units::bytes(session.bytes_down),
        age(i64::try_from(session.seconds).unwrap_or(i64::MAX)),
        printable(&session.protocol),
        printable(&session.pod),
        text(session.session.as_deref()),
        text(session.backend.as_deref()),
        printable(session.server_name.as_deref().unwrap_or_default()),
    ]
}

fn summary(report: &Report) -> String {
    let mut parts = vec![units::count(report.total, "session")];
    parts.extend(report.matching.map(|matching| format!("{matching} match")));
    if report.is_cut {
        parts.push(format!("{} shown", report.sessions.len()));
    }
    parts.join(", ")
}
