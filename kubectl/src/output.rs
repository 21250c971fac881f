//! Writes to standard output and standard error.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use kubectl_core::render::{Look, printable, printable_json};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::{args::Output, error::Error};

/// Clears a terminal, and moves its cursor to the start.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Prints a report in the format that the user wants; `text` makes the text of it. Returns false if nobody reads it any
/// more.
pub(crate) fn print<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<bool, Error> {
    Ok(write(&document(report, output, text)?)?)
}

/// The same for a report that is printed again and again: on a terminal, the text replaces the one before.
pub(crate) fn reprint<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<bool, Error> {
    let document = document(report, output, text)?;
    let document = match output {
        Output::Text | Output::Wide if io::stdout().is_terminal() => format!("{CLEAR}{document}"),
        Output::Yaml => format!("---\n{document}"),
        _ => document,
    };
    Ok(write(&document)?)
}

fn document<R: Serialize>(report: &R, output: Output, text: fn(&R, Look) -> String) -> Result<String, Error> {
    Ok(match output {
        Output::Text | Output::Wide => text(report, look(output == Output::Wide)),
        Output::Json => printable_json(&serde_json::to_string_pretty(report)?) + "\n",
        Output::Yaml => serde_yaml::to_string(report)?,
    })
}

/// How text looks on this terminal, if it is one. `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM=dumb` have their
/// usual meaning.
pub(crate) fn look(is_wide: bool) -> Look {
    let is_coloured = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let width = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
    Look { is_coloured, is_wide, width }
}

/// Writes a text. Returns false if nobody reads it any more: a reader that closes the pipe early is not an error.
pub(crate) fn write(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reports a problem on standard error. A reader that has closed the pipe is not an error, and `eprintln!` would panic.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(text));
}
