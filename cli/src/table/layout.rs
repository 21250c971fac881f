//! Fits the cells of a table into the width of a terminal.

use std::collections::BTreeSet;

/// Columns, from left to right.
pub(super) const HEAD: [&str; COLUMNS] = ["LISTENER", "ADDRESS", "NAMES", "BACKENDS", "STATE"];
const COLUMNS: usize = 5;
const LISTENER: usize = 0;
const ADDRESS: usize = 1;
const NAMES: usize = 2;
const BACKENDS: usize = 3;
/// The column that is shortened at its end, which has the details.
pub(super) const STATE: usize = 4;

/// The columns to narrow on a narrow terminal, in this order, each with its new width in characters. A column of width
/// 0 is left out.
const GIVE_WAY: [(usize, usize); 12] = [
    (BACKENDS, 20),
    (NAMES, 20),
    (LISTENER, 40),
    (BACKENDS, 8),
    (NAMES, 8),
    (LISTENER, 20),
    (STATE, 10),
    (NAMES, 0),
    (BACKENDS, 0),
    (LISTENER, 12),
    (STATE, 6),
    (ADDRESS, 12),
];
/// Spaces between two columns.
const GAP: usize = 2;
/// The widest column, in characters, behind which others are aligned if no terminal sets the width.
const WIDEST: usize = 60;

/// The cells of each row as they are shown, padded; an empty cell is left out with its gap. No row is wider than
/// `width`. Without a width, no cell is shortened. A column without any text is left out.
pub(super) fn layout(rows: &[[String; COLUMNS]], width: Option<usize>) -> Vec<[String; COLUMNS]> {
    let mut widths = [0; COLUMNS];
    for (column, width) in widths.iter_mut().enumerate() {
        *width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    }
    if rows.iter().skip(1).all(|row| row[NAMES].is_empty()) {
        widths[NAMES] = 0;
    }
    let mut rows = rows.to_vec();
    if let Some(width) = width {
        narrow(&mut widths, width);
        let names: Vec<&str> = rows.iter().map(|row| row[LISTENER].as_str()).collect();
        let names = short_names(&names, widths[LISTENER]);
        for (row, name) in rows.iter_mut().zip(names) {
            row[LISTENER] = name;
        }
    }
    let row = |row: &[String; COLUMNS]| {
        let mut cells: [String; COLUMNS] =
            std::array::from_fn(|column| cell(column, &row[column], widths[column], width));
        if let Some(width) = width {
            cut(&mut cells, width);
        }
        cells
    };
    rows.iter().map(row).collect()
}

/// Joins the cells that are shown, with the gaps between them.
pub(super) fn joined(cells: &[String]) -> String {
    let cells: Vec<&str> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
    cells.join(&" ".repeat(GAP))
}

/// Narrows columns until the row fits, or no column can be narrowed further.
fn narrow(widths: &mut [usize; COLUMNS], most: usize) {
    for (column, least) in GIVE_WAY {
        let excess = total(widths).saturating_sub(most);
        if excess == 0 {
            return;
        }
        let width = &mut widths[column];
        if *width > least {
            // A few characters of a column that is to be left out would be useless.
            *width = if least == 0 { 0 } else { least.max(width.saturating_sub(excess)) };
        }
    }
}

fn total(widths: &[usize; COLUMNS]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0).count();
    widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1)
}

fn cell(column: usize, text: &str, width: usize, limit: Option<usize>) -> String {
    if width == 0 {
        return String::new();
    }
    let text = match limit {
        None => text.to_owned(),
        Some(_) if column == STATE => shortened(text, width, 0),
        Some(_) => shortened(text, width, width.saturating_sub(1) / 2),
    };
    if column == STATE {
        return text;
    }
    let width = if limit.is_none() { width.min(WIDEST) } else { width };
    format!("{text:<width$}")
}

/// Shortens names of listeners to at most `width` characters each. The namespace is cut first, which most listeners
/// have in common; then the part whose loss leaves as many names as possible distinct.
fn short_names(names: &[&str], width: usize) -> Vec<String> {
    let distinct = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len();
    let wanted = names.iter().collect::<BTreeSet<_>>().len();
    let most = width.saturating_sub(1);
    let mut best: Vec<String> = names.iter().map(|name| namespace_first(name, width)).collect();
    for end in [most / 2, most / 4, most - most / 4, 0, most] {
        if distinct(&best) == wanted {
            break;
        }
        let other: Vec<String> = names.iter().map(|name| without_namespace(name, width, end)).collect();
        if distinct(&other) > distinct(&best) {
            best = other;
        }
    }
    best
}

/// The name with as much of its namespace as fits, if the rest of it fits.
fn namespace_first(name: &str, width: usize) -> String {
    let (namespace, rest) = name.split_at(name.find('/').unwrap_or(0));
    let room = width.saturating_sub(rest.chars().count());
    if room < 2 || namespace.is_empty() {
        return shortened(name, width, width.saturating_sub(1) / 2);
    }
    format!("{}{rest}", shortened(namespace, room, 0))
}

/// The name, or its beginning behind the namespace and its last `end` characters.
fn without_namespace(name: &str, width: usize, end: usize) -> String {
    match name.find('/') {
        Some(at) if name.chars().count() > width => shortened(&format!("…{}", &name[at..]), width, end),
        _ => shortened(name, width, end),
    }
}

/// The text, or as much of its beginning and its last `end` characters as fits into `width` characters.
fn shortened(text: &str, width: usize, end: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let beginning = width.saturating_sub(1).saturating_sub(end);
    let mut short: String = text.chars().take(beginning).collect();
    short.push('…');
    short.extend(text.chars().skip(count - end));
    short
}

/// Cuts a row that is still too wide, at its right end.
fn cut(cells: &mut [String; COLUMNS], width: usize) {
    let mut left = width;
    let mut gap = 0;
    for cell in cells.iter_mut().filter(|cell| !cell.is_empty()) {
        left = left.saturating_sub(gap);
        *cell = if left == 0 { String::new() } else { shortened(cell, left, 0) };
        left -= cell.chars().count();
        gap = GAP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; COLUMNS]) -> [String; COLUMNS] {
        cells.map(str::to_owned)
    }

    fn rows() -> Vec<[String; COLUMNS]> {
        vec![
            row(HEAD),
            row(["default/hello/tcp", "127.0.0.1:7000/TCP", "", "127.0.0.1:7777", "Bound"]),
            row([
                "production/a-forward-with-a-long-name/postgres",
                "0.0.0.0:30000-30019/TCP",
                "",
                "svc/orders.production:5432, svc/orders-standby.production:5432",
                "Refused (PortConflict)",
            ]),
        ]
    }

    fn tls() -> Vec<[String; COLUMNS]> {
        vec![
            row(HEAD),
            row([
                "shop/edge/orders",
                "0.0.0.0:8443/TCP",
                "orders.example.com, *.orders.example.com",
                "10.20.0.11:6380",
                "Bound",
            ]),
            row(["shop/edge/plain", "0.0.0.0:8080/TCP", "", "10.20.0.12:80", "Bound"]),
        ]
    }

    fn lines(rows: &[[String; COLUMNS]], width: Option<usize>) -> Vec<String> {
        layout(rows, width).iter().map(|cells| joined(cells).trim_end().to_owned()).collect()
    }

    #[test]
    fn without_a_terminal_nothing_is_shortened() {
        let expected = [
            "LISTENER                                        ADDRESS                  BACKENDS                                                      STATE",
            "default/hello/tcp                               127.0.0.1:7000/TCP       127.0.0.1:7777                                                Bound",
            "production/a-forward-with-a-long-name/postgres  0.0.0.0:30000-30019/TCP  svc/orders.production:5432, svc/orders-standby.production:5432  Refused (PortConflict)",
        ];
        assert_eq!(lines(&rows(), None), expected);
    }

    #[test]
    fn the_table_fits_120_columns() {
        let expected = [
            "LISTENER                                        ADDRESS                  BACKENDS                 STATE",
            "default/hello/tcp                               127.0.0.1:7000/TCP       127.0.0.1:7777           Bound",
            "production/a-forward-with-a-long-name/postgres  0.0.0.0:30000-30019/TCP  svc/orders.…uction:5432  Refused (PortConflict)",
        ];
        assert_eq!(lines(&rows(), Some(120)), expected);
    }

    #[test]
    fn the_table_fits_80_columns() {
        let expected = [
            "LISTENER               ADDRESS                  BACKENDS  STATE",
            "default/hello/tcp      127.0.0.1:7000/TCP       127.…777  Bound",
            "production…e/postgres  0.0.0.0:30000-30019/TCP  svc/…432  Refused (PortConflict)",
        ];
        assert_eq!(lines(&rows(), Some(80)), expected);
    }

    #[test]
    fn the_table_fits_40_columns() {
        let expected = [
            "LISTENER      ADDRESS             STATE",
            "d…/hello/tcp  127.0.0.1:7000/TCP  Bound",
            "produc…tgres  0.0.0.0:3…0019/TCP  Refus…",
        ];
        assert_eq!(lines(&rows(), Some(40)), expected);
    }

    #[test]
    fn no_row_is_wider_than_a_terminal_of_any_width() {
        for width in [1, 2, 3, 10, 20, 33, 60, 100, 200] {
            for lines in [lines(&rows(), Some(width)), lines(&tls(), Some(width))] {
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
            }
        }
    }

    #[test]
    fn server_names_have_a_column_if_there_are_any() {
        let expected = [
            "LISTENER          ADDRESS           NAMES                 BACKENDS         STATE",
            "shop/edge/orders  0.0.0.0:8443/TCP  orders.exa…ample.com  10.20.0.11:6380  Bound",
            "shop/edge/plain   0.0.0.0:8080/TCP                        10.20.0.12:80    Bound",
        ];
        assert_eq!(lines(&tls(), Some(80)), expected);
    }

    #[test]
    fn names_of_listeners_stay_different_and_lose_their_namespace_first() {
        assert_eq!(short_names(&["production/orders/pg", "a/b/c"], 13), ["pr…/orders/pg", "a/b/c"]);
        let row = |at: usize| {
            let (name, address) =
                (format!("production/orders-{at}/postgres-primary"), format!("127.0.0.1:1543{at}/TCP"));
            row([&name, &address, "", "10.20.0.11:5432", "Bound"])
        };
        let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain((1..=6).map(row)).collect();
        let names: BTreeSet<String> =
            layout(&rows, Some(60)).into_iter().map(|cells| cells[LISTENER].clone()).collect();
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("…/orders-1/…")), "{names:?}");
    }

    #[test]
    fn no_row_is_wider_than_the_terminal() {
        for width in 1..200 {
            for line in lines(&rows(), Some(width)).iter().chain(&lines(&tls(), Some(width))) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
