//! The whole terminal as a page of text, and the keys that the user presses.

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
use tokio::sync::mpsc;

/// Longest time until the thread that reads keys notices that nobody wants them.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The user wants to end the program.
    Quit,
    /// The terminal has another size.
    Resized,
}

/// The terminal. Dropping it restores what was there before.
#[derive(Debug)]
pub(super) struct Screen {
    out: io::Stdout,
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    /// Takes over the terminal.
    pub(super) fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (send, keys) = mpsc::channel(8);
        // From here on, dropping the screen undoes the raw mode.
        let mut screen = Self { out: io::stdout(), keys };
        execute!(screen.out, EnterAlternateScreen, Hide, DisableLineWrap)?;
        thread::spawn(move || read(&send));
        Ok(screen)
    }

    /// Width and height in characters. A terminal that knows no size has 80 by 24.
    pub(super) fn size() -> io::Result<(usize, usize)> {
        let (width, height) = terminal::size()?;
        let known = |size: u16, otherwise: usize| if size == 0 { otherwise } else { usize::from(size) };
        Ok((known(width, 80), known(height, 24)))
    }

    /// Shows a text in place of the one before. No line is wrapped.
    pub(super) fn draw(&mut self, text: &str) -> io::Result<()> {
        paint(&mut self.out.lock(), text)
    }

    /// Waits for what the user does. A terminal that has gone counts as the wish to quit.
    pub(super) async fn key(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::Quit)
    }
}

/// Writes a frame: all of it becomes visible at once, in place of what was there.
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
        // Nobody can be told that the terminal has gone.
        let _ = execute!(self.out, EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Sends keys until nobody wants them, or the terminal has gone.
fn read(out: &mpsc::Sender<Key>) {
    while !out.is_closed() {
        let event = match event::poll(PATIENCE) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let Ok(event) = event else { return };
        if let Some(key) = meaning(&event)
            && out.blocking_send(key).is_err()
        {
            return;
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Resize(..) => return Some(Key::Resized),
        Event::Key(key) if key.kind == KeyEventKind::Press => key,
        _ => return None,
    };
    // A terminal in raw mode sends no signal for Ctrl-C.
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let quits = is_interrupt || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
    quits.then_some(Key::Quit)
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;
    use kubectl_core::{
        check::Outcome,
        render::{self, Look},
        top::{Load, Report, Row},
    };

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
    fn a_frame_shows_every_line_of_the_view_within_the_terminal() {
        let load = Load { sessions: 3, new_per_second: Some(1), bytes_per_second: Some(2048), at_least: false };
        let row = |name: &str, outcome| Row { name: name.to_owned(), outcome, health: "Ready".to_owned(), load };
        let report = Report {
            total: load,
            forwards: vec![row("shop/db", Outcome::Ok), row("shop/orders-database-replica", Outcome::Failed)],
            pods: vec![row("shop/edge-5f7c-abcde", Outcome::Ok)],
            notes: Vec::new(),
        };
        for (width, height) in [(20, 5), (20, 24), (80, 24), (160, 48)] {
            let look = Look { width: Some(width), is_wide: false, is_coloured: false };
            let text = render::top(&report, look, Some(height));
            let mut frame = Vec::new();
            paint(&mut frame, &text).expect("a frame");
            let shown = rows(&String::from_utf8(frame).expect("text"));
            assert_eq!(shown, text.lines().collect::<Vec<_>>(), "{width} by {height}");
            assert!(shown.len() <= height, "{width} by {height}: {shown:?}");
            assert!(shown.iter().all(|line| line.chars().count() <= width), "{width} by {height}: {shown:?}");
            assert!(shown.first().is_some_and(|line| line.starts_with("3 sessions")), "{shown:?}");
        }
    }

    #[test]
    fn q_escape_and_control_c_quit() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(key(code, modifiers), Some(Key::Quit));
        }
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(20, 5)), Some(Key::Resized));
    }
}
