//! The text of `top`.

use anstyle::Style;

use crate::{
    top::{
        Load, Report, Row,
        view::{Extent, Sort, View},
    },
    units,
};

use super::{
    Look, notes, printable,
    text::{Column, fitted},
};

/// The columns, with the order of the rows that each stands for. The name is last: a narrow terminal cuts its end.
const COLUMNS: [(Sort, Column<'_>); 5] = [
    (Sort::Sessions, ("SESSIONS", 0)),
    (Sort::New, ("NEW/S", 2)),
    (Sort::Bytes, ("BYTES/S", 1)),
    (Sort::Health, ("HEALTH", 3)),
    (Sort::Name, ("", 0)),
];
/// The least height of a terminal, in lines, that has room for the help.
const HELPED: usize = 3;

/// The report as text.
pub fn top(report: &Report, look: Look) -> String {
    let sections = [("FORWARD", &report.forwards), ("POD", &report.pods)];
    let sections: String = sections.iter().map(|(title, rows)| section(title, rows, None, look)).collect();
    format!("{}\n{sections}{}", total(report, look), notes(&report.notes, look))
}

/// Formats the report as a screen of this height: the total, as many of the other lines as there is room for, and the
/// keys. Also returns how many lines there are to scroll.
pub fn top_screen(report: &Report, view: View, look: Look, height: usize) -> (String, Extent) {
    let lines = lines(report, view, look);
    let is_helped = height >= HELPED;
    let room = height.saturating_sub(1 + usize::from(is_helped));
    let extent = Extent { lines: lines.len(), room };
    let range = view.visible(extent);
    let mut shown: Vec<&str> =
        lines.iter().skip(range.start).take(range.len()).map(|line| line.text.as_str()).collect();
    let titles = lines.get(range.start).and_then(|line| lines.get(line.titles?));
    // The titles of the columns stay above the rows that are scrolled.
    if let (Some(titles), [first, _, ..]) = (titles, shown.as_mut_slice()) {
        *first = titles.text.as_str();
    }
    let mut text = total(report, look);
    for line in shown {
        text.push('\n');
        text.push_str(line);
    }
    if is_helped {
        text.push_str(&"\n".repeat(room + 1 - range.len()));
        text.push_str(&help(view, extent, look));
    }
    (text + "\n", extent)
}

/// A line that can be scrolled.
struct Line {
    text: String,
    /// For a row, the index of the line with the titles of its columns.
    titles: Option<usize>,
}

/// Everything below the total.
fn lines(report: &Report, view: View, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    for (title, rows) in [("FORWARD", &report.forwards), ("POD", &report.pods)] {
        // An empty line comes before the titles.
        let titles = lines.len() + 1;
        let text = section(title, &view.sorted(rows), Some(view.sort), look);
        let line = |(at, text): (usize, &str)| Line { text: text.to_owned(), titles: (at > 1).then_some(titles) };
        lines.extend(text.lines().enumerate().map(line));
    }
    lines.extend(notes(&report.notes, look).lines().map(|text| Line { text: text.to_owned(), titles: None }));
    lines
}

fn total(report: &Report, look: Look) -> String {
    let [_, new, bytes] = numbers(report.total);
    let total =
        [units::count(report.total.sessions, "session"), format!("{new} new/s"), format!("{bytes}/s")].join(", ");
    look.title(&cut(&total, look))
}

/// The keys, and which of the lines are shown if these are not all.
fn help(view: View, extent: Extent, look: Look) -> String {
    let range = view.visible(extent);
    let place = if range.len() < extent.lines {
        format!("  {}-{} of {}", range.start + 1, range.end, extent.lines)
    } else {
        String::new()
    };
    let keys = format!("s sort: {}  q quit  ↑↓ PgUp PgDn Home End scroll{place}", view.sort.name());
    look.paint(Style::new().dimmed(), &cut(&keys, look))
}

/// The part of a line that fits.
fn cut(line: &str, look: Look) -> String {
    line.chars().take(look.width.unwrap_or(usize::MAX)).collect()
}

/// A table. The title of the column that the rows are sorted by has a mark.
fn section(title: &str, rows: &[Row], sorted: Option<Sort>, look: Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let titled = |(sort, (name, rank)): (Sort, Column<'_>)| {
        let name = if sort == Sort::Name { title } else { name };
        let mark = match sorted {
            Some(Sort::Name) if sort == Sort::Name => "↑",
            Some(sorted) if sort == sorted => "↓",
            _ => "",
        };
        (format!("{name}{mark}"), rank)
    };
    let head = COLUMNS.map(titled);
    let head: Vec<Column<'_>> = head.iter().map(|(name, rank)| (name.as_str(), *rank)).collect();
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
