//! The text of `describe`.

use crate::describe::{EventLine, Report};

use super::{
    INDENT, Look, checks, notes, printable,
    text::{Column, clipped, flowing},
};

/// Most characters of a cell of an event. Anyone who may write Events may write one of a megabyte.
const CELL: usize = 1024;
/// Columns of events.
const EVENT: [Column<'_>; 4] = [("AGE", 2), ("TYPE", 3), ("REASON", 1), ("MESSAGE", 0)];

/// The report as text.
pub fn describe(report: &Report, look: Look) -> String {
    let title = format!("{}/{}", printable(&report.namespace), printable(&report.name));
    let mut text = format!("{}\n", look.title(&title));
    text.push_str(&checks(std::slice::from_ref(&report.ready), INDENT, look));
    for step in &report.steps {
        text.push('\n');
        text.push_str(&checks(std::slice::from_ref(&step.check), 0, look));
        text.push_str(&checks(&step.items, INDENT, look));
    }
    if !report.events.is_empty() {
        let row = |event: &EventLine| {
            let reason = match event.count {
                ..=1 => event.reason.clone(),
                count => format!("{} (x{count})", event.reason),
            };
            let cells = [&event.age, &event.type_, &reason, &event.message].map(|cell| printable(&clipped(cell, CELL)));
            (" ".to_owned(), cells.to_vec())
        };
        let rows: Vec<(String, Vec<String>)> = report.events.iter().map(row).collect();
        text.push_str(&format!("\n{}\n", look.title("events")));
        text.push_str(&flowing(&EVENT, &rows, 0, look.width));
    }
    text.push_str(&notes(&report.notes, look));
    text
}
