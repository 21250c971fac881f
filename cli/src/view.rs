//! The view of `top` on a terminal, for a process on this machine and for a cluster.

mod screen;

use std::io::{self, IsTerminal};

use kubectl_core::{
    render::{Look, top_screen},
    top::{Report, view::View},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::screen::{Input, Screen};
use crate::{output, terminal};

/// Width and height of a terminal that does not report its size.
const SIZE: (usize, usize) = (80, 24);

/// Whether a user can see the view and press its keys.
pub fn has_viewer() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// Shows the latest report until the user quits or the sender is gone. The terminal is restored at each end.
pub async fn show(mut latest: watch::Receiver<Report>) -> io::Result<()> {
    // Signals are handled before the terminal is taken over: a signal that ended the program at once would leave it
    // unrestored.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut screen = Screen::open()?;
    let (look, mut view) = (output::look(false), View::default());
    loop {
        let (width, height) = (terminal::width().unwrap_or(SIZE.0), output::height().unwrap_or(SIZE.1));
        let look = Look { width: Some(width), ..look };
        let (text, extent) = top_screen(&latest.borrow_and_update(), view, look, height);
        screen.draw(&text)?;
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return Ok(()) },
            input = screen.input() => match input {
                Input::Quit => return Ok(()),
                Input::View(key) => view = view.press(key, extent),
                Input::Resized => {}
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}
