//! The end of `portlane run`.

use std::time::Duration;

use proxy::{core::logging::farewell::farewell, log::Level};
use tokio::{signal::unix::Signal, time::sleep};

use super::Runner;

impl<S> Runner<'_, S> {
    pub(super) async fn drain(&self, term: &mut Signal, interrupt: &mut Signal) {
        let live = self.proxy.live_sessions();
        if live > 0 {
            let longest = (!self.proxy.is_draining()).then_some(self.args.drain_seconds.into());
            // The user who pressed Ctrl-C waits, so the message is printed at any level.
            let level = if self.args.quiet { Level::Warn } else { Level::Info };
            self.proxy.log().notice(level, "draining", "portlane", words(live, longest));
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

/// Describes what happens to the live sessions after a signal, and how to end them now; `longest` as in [`farewell`].
fn words(live: u64, longest: Option<u64>) -> String {
    let farewell = farewell(live, longest);
    if longest == Some(0) { farewell } else { format!("{farewell}; press Ctrl-C again to exit now") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_end_at_once_are_not_said_to_continue() {
        assert_eq!(words(1, Some(0)), "ending 1 live session now");
        assert_eq!(words(2, Some(5)), "2 live sessions can continue for up to 5 s; press Ctrl-C again to exit now");
        assert!(words(2, None).ends_with("already begun; press Ctrl-C again to exit now"));
    }
}
