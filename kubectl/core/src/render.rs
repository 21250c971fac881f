//! Reports as text for people.

mod config;
mod conns;
mod describe;
mod lag;
mod status;
mod text;
mod top;
mod trace;

pub use self::{
    config::config,
    conns::conns,
    describe::describe,
    lag::lag,
    status::{local_status, status},
    top::{top, top_screen},
    trace::trace,
};

use anstyle::{AnsiColor, Style};

use crate::check::{Check, Outcome};
pub use crate::printable::{printable, printable_json};

use self::text::{padded, wrapped};

/// Indentation of everything below a title, in characters.
const INDENT: usize = 2;

/// The look of text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether text is coloured.
    pub is_coloured: bool,
    /// Whether to show the columns that most readers do not need.
    pub is_wide: bool,
    /// Width of the terminal in characters; `None` wraps nothing.
    pub width: Option<usize>,
}

impl Look {
    fn paint(self, style: Style, text: &str) -> String {
        if self.is_coloured { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn title(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    fn mark(self, outcome: Outcome) -> String {
        let (mark, color) = match outcome {
            Outcome::Ok => ("✓", AnsiColor::Green),
            Outcome::Warning => ("!", AnsiColor::Yellow),
            Outcome::Unknown => ("?", AnsiColor::Yellow),
            Outcome::Failed => ("×", AnsiColor::Red),
        };
        self.paint(color.on_default(), mark)
    }
}

/// Formats one check per paragraph: mark, name, detail, and the hint below.
fn checks(checks: &[Check], indent: usize, look: Look) -> String {
    let width = checks.iter().map(|check| printable(&check.name).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let (name, mark) = (padded(&printable(&check.name), width), look.mark(check.outcome));
        let margin = indent + 2 + width + 2;
        let detail = wrapped(&printable(&check.detail), margin, look.width);
        let line = format!("{}{mark} {name}  {detail}", " ".repeat(indent));
        text.push_str(line.trim_end());
        text.push('\n');
        text.extend(check.hint.as_ref().map(|next| hint(next, margin, look)));
    }
    text
}

/// Formats the next step in a line of its own, which is not wrapped: a person copies the command in it.
fn hint(next: &str, margin: usize, look: Look) -> String {
    let next = look.paint(Style::new().dimmed(), &format!("> {}", printable(next)));
    format!("{}{next}\n", " ".repeat(margin))
}

/// Formats the notes about objects that could not be read.
fn notes(notes: &[String], look: Look) -> String {
    let line = |note: &String| {
        let note = wrapped(&printable(note), INDENT + 2, look.width);
        format!("{}{} {note}\n", " ".repeat(INDENT), look.mark(Outcome::Unknown))
    };
    let lines: String = notes.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{}\n{lines}", look.title("Not everything could be read")) }
}
