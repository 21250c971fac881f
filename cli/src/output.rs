//! Writes reports to standard output, and problems to standard error: the same for `portlane` and the plugin of kubectl.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use kubectl_core::render::{Look, printable, printable_json};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::{error::Error, terminal};

/// Clears a terminal, and moves its cursor to the start.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people.
    Text,
    /// The same with more columns.
    Wide,
    /// A JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Formats of a report whose text leaves nothing out for want of room: `wide` would show no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Text,
    /// A JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

impl From<Format> for Output {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
            Format::Yaml => Self::Yaml,
        }
    }
}

/// Prints a report in the format that the user requested; `text` formats it for people. Returns false if the pipe is
/// closed.
pub fn print<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<bool, Error> {
    Ok(write(&document(report, output, text)?)?)
}

/// Like `print`, for a report that is printed repeatedly: on a terminal, the text replaces the previous one.
pub fn reprint<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<bool, Error> {
    let document = document(report, output, text)?;
    Ok(match output {
        Output::Text | Output::Wide => replace(&document),
        Output::Yaml => write(&format!("---\n{document}")),
        Output::Json => write(&document),
    }?)
}

/// Writes a text that replaces the previous one on a terminal. Returns false if the pipe is closed.
fn replace(text: &str) -> io::Result<bool> {
    if io::stdout().is_terminal() { write(&format!("{CLEAR}{text}")) } else { write(text) }
}

fn document<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<String, Error> {
    Ok(match output {
        Output::Text | Output::Wide => text(report, look(output == Output::Wide)),
        Output::Json => {
            let json = serde_json::to_string_pretty(report).map_err(|error| Error::Report(error.to_string()))?;
            printable_json(&json) + "\n"
        }
        Output::Yaml => yaml(report)?,
    })
}

/// Formats a report as YAML.
fn yaml<R: Serialize>(report: &R) -> Result<String, Error> {
    serde_yaml::to_string(report).map_err(|error| Error::Report(error.to_string()))
}

/// Formats a report in a stream as a line of JSON.
pub fn json_line<R: Serialize>(report: &R) -> Result<String, Error> {
    let json = serde_json::to_string(report).map_err(|error| Error::Report(error.to_string()))?;
    Ok(printable_json(&json) + "\n")
}

/// Formats a report in a stream as a YAML document.
pub fn yaml_document<R: Serialize>(report: &R) -> Result<String, Error> {
    Ok(format!("---\n{}", yaml(report)?))
}

/// Returns the look of text on this terminal, if it is one. `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM=dumb`
/// have their usual meaning.
pub fn look(is_wide: bool) -> Look {
    let is_coloured = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    Look { is_coloured, is_wide, width: terminal::width() }
}

/// Rows of the terminal at standard output; `None` if there is none.
pub(crate) fn height() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0).then(|| size.ws_row.into())
}

/// Writes a text. Returns false if the pipe is closed: a reader that closes it early is not an error.
pub fn write(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reports a problem on standard error. A reader that has closed the pipe is not an error, and `eprintln!` would panic.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}
