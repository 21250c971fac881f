//! A full-screen page of text on the terminal, and the user's keys.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    execute, queue,
    style::Print,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
        EnterAlternateScreen, LeaveAlternateScreen,
    },
};
use kubectl_core::top::view::Key;
use tokio::sync::mpsc;

/// The longest time until the thread that reads keys notices that the receiver is gone.
const PATIENCE: Duration = Duration::from_millis(200);
/// The most inputs in the queue. If a key is held down, the thread waits for the screen.
const WAITING: usize = 8;

/// An action of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The user ends the program.
    Quit,
    /// The user changes the view.
    View(Key),
    /// The size of the terminal changed.
    Resized,
}

/// The terminal in full-screen mode. Dropping this value restores the previous contents.
#[derive(Debug)]
pub(super) struct Screen {
    out: io::Stdout,
    inputs: mpsc::Receiver<Input>,
}

impl Screen {
    /// Takes over the terminal.
    pub(super) fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (send, inputs) = mpsc::channel(WAITING);
        // From here on, dropping the screen undoes the raw mode.
        let mut screen = Self { out: io::stdout(), inputs };
        execute!(screen.out, EnterAlternateScreen, Hide, DisableLineWrap)?;
        thread::spawn(move || read(&send));
        Ok(screen)
    }

    /// Shows a text in place of the previous one. No line is wrapped.
    pub(super) fn draw(&mut self, text: &str) -> io::Result<()> {
        paint(&mut self.out.lock(), text)
    }

    /// Waits for an action of the user. A closed terminal counts as a request to quit.
    pub(super) async fn input(&mut self) -> Input {
        self.inputs.recv().await.unwrap_or(Input::Quit)
    }
}

/// Writes a frame: all of it becomes visible at once, in place of the previous one.
fn paint(out: &mut impl Write, text: &str) -> io::Result<()> {
    queue!(out, BeginSynchronizedUpdate, Clear(ClearType::All))?;
    for (row, line) in (0..).zip(text.lines()) {
        queue!(out, MoveTo(0, row), Print(line))?;
    }
    queue!(out, EndSynchronizedUpdate)?;
    out.flush()
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A failure means that the terminal has closed, so there is nobody to tell.
        let _ = execute!(self.out, EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Sends inputs until the receiver is gone, or the terminal has closed.
fn read(out: &mpsc::Sender<Input>) {
    while !out.is_closed() {
        let event = match event::poll(PATIENCE) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let Ok(event) = event else { return };
        if let Some(input) = meaning(&event)
            && out.blocking_send(input).is_err()
        {
            return;
        }
    }
}

fn meaning(event: &Event) -> Option<Input> {
    let key = match event {
        Event::Resize(..) => return Some(Input::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        // A terminal in raw mode sends no signal for Ctrl-C.
        return (key.code == KeyCode::Char('c')).then_some(Input::Quit);
    }
    let key = match key.code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Some(Input::Quit),
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Char('s' | '>') => Key::SortRight,
        KeyCode::Char('<') => Key::SortLeft,
        _ => return None,
    };
    Some(Input::View(key))
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    /// Begin and end of a frame, and what clears the terminal.
    const BEGIN: &str = "\u{1b}[?2026h";
    const END: &str = "\u{1b}[?2026l";
    const CLEAR: &str = "\u{1b}[2J";

    /// The rows that a terminal shows after a frame.
    fn rows(frame: &str) -> Vec<String> {
        let body = frame.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).expect("one synchronized update");
        let mut body = body.strip_prefix(CLEAR).expect("the frame clears the terminal first");
        let mut rows = Vec::new();
        while let Some(rest) = body.strip_prefix("\u{1b}[") {
            let (place, rest) = rest.split_once('H').expect("a place");
            assert_eq!(place, format!("{};1", rows.len() + 1), "each line begins at the left, below the last one");
            let end = rest.find('\u{1b}').unwrap_or(rest.len());
            let (line, more) = rest.split_at(end);
            rows.push(line.to_owned());
            body = more;
        }
        assert_eq!(body, "");
        rows
    }

    #[test]
    fn a_frame_shows_every_line_of_the_screen_in_a_row_of_its_own() {
        for text in
            ["", "3 sessions\n", "3 sessions\n\n  SESSIONS↓  FORWARD\n✓ 3          shop/db\n\n\ns sort: sessions\n"]
        {
            let mut frame = Vec::new();
            paint(&mut frame, text).expect("a frame");
            let shown = rows(&String::from_utf8(frame).expect("text"));
            assert_eq!(shown, text.lines().collect::<Vec<_>>());
        }
    }

    #[test]
    fn q_escape_and_control_c_quit_and_other_keys_change_the_view() {
        let input = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(input(code, modifiers), Some(Input::Quit));
        }
        for (code, key) in [
            (KeyCode::Up, Key::Up),
            (KeyCode::Char('j'), Key::Down),
            (KeyCode::PageUp, Key::PageUp),
            (KeyCode::Char(' '), Key::PageDown),
            (KeyCode::Home, Key::Home),
            (KeyCode::End, Key::End),
            (KeyCode::Char('s'), Key::SortRight),
            (KeyCode::Char('<'), Key::SortLeft),
        ] {
            assert_eq!(input(code, KeyModifiers::NONE), Some(Input::View(key)));
        }
        assert_eq!(input(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(input(KeyCode::Char('s'), KeyModifiers::CONTROL), None);
        assert_eq!(meaning(&Event::Resize(20, 5)), Some(Input::Resized));
    }
}
