//! Records for people: one line each, in the columns time, event, subject and message.

use std::{borrow::Cow, fmt::Write as _, io, time::SystemTime};

use anstyle::{AnsiColor, Style};
use proxy_api::is_hidden;
use serde_json::ser::Formatter;

use super::{Event, Level, SessionRecord};

/// Column of the event, in characters. The few longer events take room from the subject.
const EVENT: usize = 10;
/// Narrowest and widest column of the subject, in characters.
const SUBJECT: (usize, usize) = (28, 48);

/// The columns. That of the subject is as wide as the longest subject so far, up to a bound, so that lines stay aligned.
#[derive(Debug)]
pub(super) struct Grid {
    coloured: bool,
    subject: usize,
}

impl Grid {
    /// Creates the columns of a log in which nothing is written yet.
    pub(super) fn new(coloured: bool) -> Self {
        Self { coloured, subject: SUBJECT.0 }
    }

    /// Appends the record.
    pub(super) fn write(&mut self, buffer: &mut String, time: SystemTime, event: &Event) {
        match event {
            Event::Lines(text) => buffer.push_str(text),
            Event::Notice(notice) => {
                let subject = notice.subject.to_string();
                self.line(buffer, time, notice.level, [notice.event, &subject, &notice.message]);
            }
            Event::Session(record) => {
                let (listener, message) = (record.listener.to_string(), session(record));
                self.line(buffer, time, Level::Info, [record.phase, &listener, &message]);
            }
        }
    }

    fn line(&mut self, buffer: &mut String, time: SystemTime, level: Level, words: [&str; 3]) {
        let stamp = humantime::format_rfc3339_seconds(time).to_string();
        let clock = stamp.get(11..19).unwrap_or(&stamp);
        let [event, subject, message] = words.map(printable);
        let (mark, color) = match level {
            Level::Info => ("", Style::new()),
            Level::Warn => ("warning: ", AnsiColor::Yellow.on_default()),
            Level::Error => ("error: ", AnsiColor::Red.on_default()),
        };
        let (dim, color) = if self.coloured { (Style::new().dimmed(), color) } else { (Style::new(), Style::new()) };
        self.subject = grown(self.subject, &subject, SUBJECT.1);
        // The message stays in its column.
        let overrun = event.chars().count().saturating_sub(EVENT);
        let s = self.subject.saturating_sub(overrun);
        let _ = writeln!(
            buffer,
            "{dim}{clock}{dim:#}  {color}{event:<EVENT$}{color:#} {subject:<s$} {color}{mark}{color:#}{message}"
        );
    }
}

/// The width of a column after this text.
fn grown(width: usize, text: &str, most: usize) -> usize {
    width.max(text.chars().count().min(most))
}

/// The text in one line, without control characters and without characters that are invisible or reverse the text: some
/// texts come from clients and servers, and a terminal obeys them. In a message about a text, its fault must be
/// visible.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// JSON on one line in which the characters that [`printable`] escapes are escaped as in JSON, so that every reader
/// reads the same.
#[derive(Clone, Copy, Debug)]
pub struct PrintableJson;

impl Formatter for PrintableJson {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, character)| is_hidden(*character)) {
            let (shown, from) = rest.split_at(at);
            writer.write_all(shown.as_bytes())?;
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                writer.write_all(format!("\\u{unit:04x}").as_bytes())?;
            }
            rest = from.get(hidden.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Describes a session.
fn session(record: &SessionRecord) -> String {
    let to = record.endpoint.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let name = record.name.as_ref().map(|name| format!(" for {name}")).unwrap_or_default();
    let mut text = format!("{} -> {to}{name}", record.client);
    if record.phase != "opened" {
        let _ = write!(text, ", {} B up, {} B down, {:.3} s", record.up, record.down, record.duration.as_secs_f64());
    }
    if let Some(reason) = record.reason {
        let _ = write!(text, ", {}", reason.as_str());
    }
    if let Some(cause) = &record.cause {
        let _ = write!(text, " ({cause})");
    }
    let _ = write!(text, ", session {}", record.session);
    text
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use proxy_api::{SessionId, Transport};

    use super::*;
    use crate::{core::sessions::end::EndReason, log::Notice};

    fn notice(level: Level, subject: &str, message: &str) -> Event {
        Event::Notice(Notice { level, event: "event", subject: subject.into(), message: message.to_owned() })
    }

    fn closed() -> Event {
        Event::Session(Box::new(SessionRecord {
            session: SessionId(0xab),
            phase: "closed",
            listener: "ns/f/l".parse().expect("an id"),
            transport: Transport::Tcp,
            client: "192.0.2.1:5".parse().expect("an address"),
            backend: None,
            endpoint: Some(SocketAddr::from(([192, 0, 2, 2], 6)).into()),
            name: Some("db.example.com".into()),
            up: 1,
            down: 2,
            duration: Duration::from_millis(1500),
            reason: Some(EndReason::Idle),
            cause: None,
        }))
    }

    fn written(grid: &mut Grid, event: &Event) -> String {
        let mut text = String::new();
        grid.write(&mut text, SystemTime::UNIX_EPOCH, event);
        text
    }

    #[test]
    fn events_and_sessions_have_the_same_columns() {
        let mut grid = Grid::new(false);
        assert_eq!(
            written(&mut grid, &notice(Level::Warn, "ns/f/l", "look")),
            "00:00:00  event      ns/f/l                       warning: look\n"
        );
        let reason = EndReason::Idle.as_str();
        assert_eq!(
            written(&mut grid, &closed()),
            format!(
                "00:00:00  closed     ns/f/l                       192.0.2.1:5 -> 192.0.2.2:6 for db.example.com, \
                 1 B up, 2 B down, 1.500 s, {reason}, session 00000000000000ab\n"
            )
        );
    }

    #[test]
    fn a_column_grows_with_its_texts_up_to_a_bound() {
        let mut grid = Grid::new(false);
        let column = |line: &str| line.find("here").expect("the message");
        let mut at = |subject: usize| column(&written(&mut grid, &notice(Level::Info, &"s".repeat(subject), "here")));
        let (first, longer) = (at(3), at(40));
        assert_eq!(longer, first + 12);
        assert_eq!(at(3), longer, "the lines that follow are aligned with it");
        at(200);
        assert_eq!(at(3), first + SUBJECT.1 - SUBJECT.0, "one long text does not move all others away");
    }

    #[test]
    fn a_long_event_moves_neither_its_message_nor_the_lines_that_follow() {
        let mut grid = Grid::new(false);
        let mut at = |event, subject: &str| {
            let notice = Notice { level: Level::Info, event, subject: subject.into(), message: "here".to_owned() };
            written(&mut grid, &Event::Notice(notice)).find("here").expect("the message")
        };
        let first = at("bound", "ns/f/l");
        for event in ["backends_unhealthy", "datagrams_without_port", "limit_reached", "bound"] {
            assert_eq!(at(event, "ns/f/l"), first, "{event}");
        }
    }

    #[test]
    fn only_a_coloured_log_has_escape_sequences() {
        let event = notice(Level::Error, "s", "m");
        assert!(!written(&mut Grid::new(false), &event).contains('\u{1b}'));
        let coloured = written(&mut Grid::new(true), &event);
        assert!(coloured.contains("\u{1b}[31merror: \u{1b}[0mm"), "{coloured:?}");
    }

    #[test]
    fn a_text_from_outside_neither_ends_the_line_nor_commands_the_terminal() {
        let line = written(&mut Grid::new(true), &notice(Level::Info, "s", "a\nb\u{1b}[2Jc"));
        assert!(line.ends_with("a\\nb\\u{1b}[2Jc\n"), "{line:?}");
    }

    #[test]
    fn a_character_that_shows_nothing_or_turns_the_text_around_is_seen() {
        for hidden in ['\u{202e}', '\u{200b}', '\u{200c}', '\u{a0}', '\u{feff}', '\u{2028}', '\u{3000}', '\u{85}'] {
            let text = format!("7000{hidden}");
            assert_eq!(printable(&text), format!("7000\\u{{{:x}}}", u32::from(hidden)));
        }
        for shown in ["'\"\\ ~", "b\u{fc}cher", "e\u{301}", "\u{2026}", "\u{65e5}\u{672c}", "\\u{200b}"] {
            assert_eq!(printable(shown), shown);
        }
    }
}
