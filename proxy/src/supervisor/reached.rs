//! Notices about listeners that refuse sessions, or whose names wait, because a share is used up, and about loops.

use proxy_api::ListenerId;

use super::notices::{About, notice};
use crate::{
    core::limits::reached::{Change, LASTS},
    log::Level,
};

/// A notice of this change of the sessions.
pub(super) fn about((id, change): (ListenerId, Change)) -> About {
    let notice = match change {
        Change::Reached => {
            let message = format!(
                "sessions are refused: namespace {} has used up its share of this proxy, or the free sessions are \
                 reserved for other namespaces (reason TenantLimit)",
                id.origin.namespace
            );
            notice(Level::Warn, "limit_reached", &id, message)
        }
        Change::Left => notice(Level::Info, "limit_left", &id, format!("no session was refused for {LASTS} s")),
    };
    (id, notice)
}

/// A notice of this change of the sessions of one source.
pub(super) fn about_sources((id, change): (ListenerId, Change)) -> About {
    let notice = match change {
        Change::Reached => {
            let message = "sessions are refused: one source has reached its share of this proxy's sessions (reason \
                           SourceShare)";
            notice(Level::Warn, "limit_reached", &id, message)
        }
        Change::Left => {
            let message = format!("no session was refused for the share of its source for {LASTS} s");
            notice(Level::Info, "limit_left", &id, message)
        }
    };
    (id, notice)
}

/// A notice of this change of a loop.
pub(super) fn about_loops((id, change): (ListenerId, Change)) -> About {
    let notice = match change {
        Change::Reached => {
            let message = "a loop is likely: a session or datagram came back to the fleet, or the hop limit of a \
                           datagram was exceeded (reason Loop)";
            notice(Level::Warn, "loop", &id, message)
        }
        Change::Left => notice(Level::Info, "loop_left", &id, "the loop has ended"),
    };
    (id, notice)
}

/// A notice of this change of the lookups.
pub(super) fn about_lookups((id, change): (ListenerId, Change)) -> About {
    let notice = match change {
        Change::Reached => {
            let message = format!(
                "DNS names wait for their turn to be looked up: namespace {} has used up its lookups in this proxy (reason \
                 LookupLimit)",
                id.origin.namespace
            );
            notice(Level::Warn, "limit_reached", &id, message)
        }
        Change::Left => notice(Level::Info, "limit_left", &id, format!("no name has waited long for {LASTS} s")),
    };
    (id, notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn the_namespace_is_named_and_the_end_needs_nobody() {
        let ((of, warning), (_, end)) = (about((id("a"), Change::Reached)), about((id("a"), Change::Left)));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.contains("namespace ns has used up"), "{}", warning.message);
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        assert_eq!(end.message, "no session was refused for 60 s");
    }

    #[test]
    fn a_loop_and_a_source_with_its_share_are_told_with_the_reason_that_metrics_have() {
        let (of, warning) = about_sources((id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.ends_with("(reason SourceShare)"), "{}", warning.message);
        let (_, end) = about_sources((id("a"), Change::Left));
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        let (of, warning) = about_loops((id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "loop"));
        assert!(warning.message.ends_with("(reason Loop)"), "{}", warning.message);
        let (_, end) = about_loops((id("a"), Change::Left));
        assert_eq!((end.level, end.event), (Level::Info, "loop_left"));
        assert_eq!(end.message, "the loop has ended");
    }

    #[test]
    fn lookups_that_are_used_up_are_told_with_the_namespace() {
        let (of, warning) = about_lookups((id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.contains("namespace ns has used up its lookups"), "{}", warning.message);
        let (_, end) = about_lookups((id("a"), Change::Left));
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        assert_eq!(end.message, "no name has waited long for 60 s");
    }
}
