//! The table of listeners that `portlane run` prints.

mod layout;

use anstyle::{AnsiColor, Style};
use operator_core::{Outcome, Translation};
use proxy_api::{Configuration, ListenerId, ListenerState, Offer, Report};

use self::layout::{HEAD, STATE, joined, layout};

/// Most server names of one listener that the table names; the others are counted.
const MOST_NAMES: usize = 3;

/// One listener.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) listener: String,
    address: String,
    names: String,
    backends: String,
    state: String,
    tone: Tone,
}

/// Whether a listener works as its manifest requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Runs,
    Waits,
    Fails,
}

impl Row {
    /// Describes the row in a sentence, for a log.
    pub(crate) fn describe(&self) -> String {
        let names = if self.names.is_empty() { String::new() } else { format!(" for {}", self.names) };
        format!("{}{names} -> {}; {}", self.address, self.backends, self.state)
    }
}

/// The rows: one for each listener.
pub(crate) fn rows(translation: &Translation, configuration: &Configuration, report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    for (key, verdict) in &translation.verdicts {
        for verdict in &verdict.listeners {
            let listener = format!("{key}/{}", verdict.name);
            let id: Option<ListenerId> = listener.parse().ok();
            let address = id.as_ref().and_then(|id| match configuration.listeners.get(id) {
                Some(Offer::Supported(listener)) => Some(listener.place()),
                _ => None,
            });
            let reported = id.and_then(|id| report.listeners.get(&id)).map(|item| item.state);
            let (state, tone) = state(&verdict.outcome, reported);
            rows.push(Row {
                listener,
                address: address.unwrap_or_else(|| "-".to_owned()),
                names: bounded(&verdict.hostnames),
                backends: verdict.to.join(", "),
                state,
                tone,
            });
        }
    }
    rows
}

fn state(outcome: &Outcome, reported: Option<ListenerState>) -> (String, Tone) {
    match outcome {
        Outcome::Published(_) if reported == Some(ListenerState::Bound) => ("Bound".to_owned(), Tone::Runs),
        Outcome::Published(_) => ("Failed".to_owned(), Tone::Fails),
        Outcome::Allocated => ("Allocated".to_owned(), Tone::Waits),
        Outcome::Suspended => ("Suspended".to_owned(), Tone::Waits),
        Outcome::Refused { reason, .. } => (format!("Refused ({})", reason.as_str()), Tone::Fails),
    }
}

fn bounded(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Formats the table in at most `width` columns, if the terminal has a width; with colours if `coloured`. Without rows
/// the text is empty.
pub(crate) fn render(rows: &[Row], width: Option<usize>, coloured: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |row: &Row| [&row.listener, &row.address, &row.names, &row.backends, &row.state].map(String::clone);
    let all: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let head = Style::new().dimmed();
    let tones = std::iter::once((head, head)).chain(rows.iter().map(|row| (Style::new(), style(row.tone))));
    let mut text = String::new();
    for (mut cells, (line, state)) in layout(&all, width).into_iter().zip(tones) {
        let (line, state) = if coloured { (line, state) } else { (Style::new(), Style::new()) };
        if !cells[STATE].is_empty() {
            cells[STATE] = format!("{line:#}{state}{}{state:#}", cells[STATE]);
        }
        text.push_str(&format!("{line}{}{line:#}\n", joined(&cells)));
    }
    text
}

fn style(tone: Tone) -> Style {
    let color = match tone {
        Tone::Runs => AnsiColor::Green,
        Tone::Waits => AnsiColor::Yellow,
        Tone::Fails => AnsiColor::Red,
    };
    color.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(names: &[&str], tone: Tone) -> Row {
        Row {
            listener: "ns/f/l".to_owned(),
            address: "127.0.0.1:1/TCP".to_owned(),
            names: bounded(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
            backends: "b:1".to_owned(),
            state: "Bound".to_owned(),
            tone,
        }
    }

    #[test]
    fn names_are_bounded_and_counted() {
        let table = render(&[row(&["a", "b", "c", "d", "e"], Tone::Runs)], None, false);
        assert_eq!(
            table,
            "LISTENER  ADDRESS          NAMES               BACKENDS  STATE\n\
             ns/f/l    127.0.0.1:1/TCP  a, b, c and 2 more  b:1       Bound\n"
        );
        assert_eq!(render(&[], None, true), "", "a table without rows has no head");
        let told = row(&["a", "b"], Tone::Runs).describe();
        assert_eq!(told, "127.0.0.1:1/TCP for a, b -> b:1; Bound");
    }

    #[test]
    fn colours_change_no_column() {
        let rows = [row(&[], Tone::Runs), row(&[], Tone::Fails), row(&[], Tone::Waits)];
        for width in [None, Some(80), Some(20), Some(5)] {
            let coloured = render(&rows, width, true);
            let mut plain = coloured.clone();
            while let Some(start) = plain.find('\u{1b}') {
                let end = plain[start..].find('m').expect("the end of the sequence");
                plain.replace_range(start..=start + end, "");
            }
            assert_eq!(plain, render(&rows, width, false));
        }
        assert!(render(&rows, None, true).contains("\u{1b}[31mBound\u{1b}[0m\n"));
    }
}
