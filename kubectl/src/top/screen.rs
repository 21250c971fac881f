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
        let mut out = self.out.lock();
        queue!(out, BeginSynchronizedUpdate, Clear(ClearType::All))?;
        for (row, line) in (0..).zip(text.lines()) {
            queue!(out, MoveTo(0, row), Print(line))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()
    }

    /// Waits for what the user does. A terminal that has gone counts as the wish to quit.
    pub(super) async fn key(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::Quit)
    }
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

    use super::*;

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
