//! The end of `portlane run`.

use std::time::Duration;

use proxy::log::Level;
use tokio::{signal::unix::Signal, time::sleep};

use super::Runner;

impl<S> Runner<'_, S> {
    pub(super) async fn drain(&self, term: &mut Signal, interrupt: &mut Signal) {
        let live = self.proxy.live_sessions();
        if live > 0 {
            // The user who pressed Ctrl-C waits, so the message is printed at any level.
            let level = if self.args.quiet { Level::Warn } else { Level::Info };
            self.proxy.log().notice(level, "draining", "portlane", farewell(live, self.args.drain_seconds));
        }
        self.proxy.drain(Duration::from_secs(self.args.drain_seconds.into())).await;
        while !self.proxy.has_ended() {
            tokio::select! {
                _ = term.recv() => self.proxy.stop_waiting(),
                _ = interrupt.recv() => self.proxy.stop_waiting(),
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }
}

/// Describes what happens to the live sessions, and how to end them now.
fn farewell(live: u64, seconds: u32) -> String {
    match seconds {
        0 => format!("{live} live session(s) end now"),
        _ => format!("{live} live session(s) can continue for up to {seconds} s; press Ctrl-C again to end them now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_end_at_once_are_not_said_to_continue() {
        assert_eq!(farewell(1, 0), "1 live session(s) end now");
        assert!(farewell(2, 5).contains("up to 5 s; press Ctrl-C again to end them now"));
    }
}
