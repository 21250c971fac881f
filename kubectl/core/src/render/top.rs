//! The text of `top`.

use crate::{
    top::{Load, Report, Row},
    units,
};

use super::{
    Look, notes, printable,
    text::{Column, fitted},
};

/// The name is last: a narrow terminal cuts its end.
const COLUMNS: [Column<'_>; 5] = [("SESSIONS", 0), ("NEW/S", 2), ("BYTES/S", 1), ("HEALTH", 3), ("", 0)];

/// The report as text of no more than `height` lines.
pub fn top(report: &Report, look: Look, height: Option<usize>) -> String {
    let [_, new, bytes] = numbers(report.total);
    let total =
        [units::count(report.total.sessions, "session"), format!("{new} new/s"), format!("{bytes}/s")].join(", ");
    let total: String = total.chars().take(look.width.unwrap_or(usize::MAX)).collect();
    let mut text = format!("{}\n", look.title(&total));
    text.push_str(&section("FORWARD", &report.forwards, look));
    text.push_str(&section("POD", &report.pods, look));
    text.push_str(&notes(&report.notes, look));
    match height {
        Some(height) => cut(&text, height),
        None => text,
    }
}

fn section(title: &'static str, rows: &[Row], look: Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut head = COLUMNS;
    if let Some(last) = head.last_mut() {
        last.0 = title;
    }
    let cells = |row: &Row| {
        let mut cells = numbers(row.load).to_vec();
        cells.extend([printable(&row.health), printable(&row.name)]);
        (look.mark(row.outcome), cells)
    };
    let rows: Vec<(String, Vec<String>)> = rows.iter().map(cells).collect();
    format!("\n{}", fitted(&head, &rows, 0, look.width))
}

fn numbers(load: Load) -> [String; 3] {
    let bound = if load.at_least { "≥" } else { "" };
    let rate = |rate: Option<u64>, text: fn(u64) -> String| {
        rate.map_or_else(|| "-".to_owned(), |rate| format!("{bound}{}", text(rate)))
    };
    let plain = |number: u64| number.to_string();
    [load.sessions.to_string(), rate(load.new_per_second, plain), rate(load.bytes_per_second, units::bytes)]
}

/// The first lines, and how many follow.
fn cut(text: &str, height: usize) -> String {
    let lines = text.lines().count();
    if lines <= height {
        return text.to_owned();
    }
    let shown = height.saturating_sub(1);
    let first = text.lines().take(shown).collect::<Vec<_>>().join("\n");
    format!("{first}\n… {} more lines\n", lines - shown)
}
