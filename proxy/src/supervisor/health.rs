//! Notices about the health of backends.

use proxy_api::{BackendHealth, ListenerId};

use super::notices::{About, notice};
use crate::{core::backends::health::Change, log::Level};

/// A notice of this change.
pub(super) fn about((id, change): (ListenerId, Change)) -> About {
    let (level, event, what) = match change.after {
        BackendHealth::All => (Level::Info, "backends_healthy", "all backends are healthy"),
        BackendHealth::Some if change.before == BackendHealth::None => {
            (Level::Info, "backends_healthy", "some backends are healthy again")
        }
        BackendHealth::Some => (Level::Warn, "backends_unhealthy", "not all backends are healthy"),
        BackendHealth::None => (
            Level::Error,
            "backends_unhealthy",
            "no backend is healthy; new sessions still try all with a weight above 0",
        ),
    };
    let notice = notice(level, event, &id, what);
    (id, notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn the_level_follows_the_health_and_some_are_good_news_after_none() {
        use BackendHealth::{All, None, Some};
        let told = [(None, All), (None, Some), (All, Some), (All, None)].map(|(before, after)| {
            let (_, notice) = about((id("a"), Change { before, after }));
            (notice.level, notice.event)
        });
        let expected = [
            (Level::Info, "backends_healthy"),
            (Level::Info, "backends_healthy"),
            (Level::Warn, "backends_unhealthy"),
            (Level::Error, "backends_unhealthy"),
        ];
        assert_eq!(told, expected);
    }
}
