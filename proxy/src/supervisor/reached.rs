//! Notices about listeners that refuse sessions, or whose names wait, because a share is used up, and about loops.

use proxy_api::ListenerId;

use super::notices::{About, notice};
use crate::{
    core::limits::reached::{Cause, Change, LASTS},
    log::{Level, Notice},
};

/// A notice that the refusals for a cause have begun or ended.
pub(super) fn about(cause: Cause, (id, change): (ListenerId, Change)) -> About {
    let notice = match (cause, change) {
        (Cause::Tenant, Change::Reached) => {
            let message = format!(
                "sessions are refused: namespace {} has used up its share of this proxy, or the free sessions are \
                 reserved for other namespaces (reason TenantLimit)",
                id.origin.namespace
            );
            reached(&id, message)
        }
        (Cause::Tenant, Change::Left) => left(&id, format!("no session was refused for {LASTS} s")),
        (Cause::Source, Change::Reached) => {
            let message = "sessions are refused: one source has reached its share of this proxy's sessions (reason \
                           SourceShare)";
            reached(&id, message)
        }
        (Cause::Source, Change::Left) => {
            left(&id, format!("no session was refused for the share of its source for {LASTS} s"))
        }
        (Cause::Loop, Change::Reached) => {
            let message = "a loop is likely: a session or datagram came back to the fleet, or the hop limit of a \
                           datagram was exceeded (reason Loop)";
            notice(Level::Warn, "loop", &id, message)
        }
        (Cause::Loop, Change::Left) => notice(Level::Info, "loop_left", &id, "the loop has ended"),
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
            reached(&id, message)
        }
        Change::Left => left(&id, format!("no name has waited long for {LASTS} s")),
    };
    (id, notice)
}

fn reached(id: &ListenerId, message: impl Into<String>) -> Notice {
    notice(Level::Warn, "limit_reached", id, message)
}

fn left(id: &ListenerId, message: impl Into<String>) -> Notice {
    notice(Level::Info, "limit_left", id, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixtures::id;

    #[test]
    fn the_namespace_is_named_and_the_end_needs_nobody() {
        let ((of, warning), (_, end)) =
            (about(Cause::Tenant, (id("a"), Change::Reached)), about(Cause::Tenant, (id("a"), Change::Left)));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.contains("namespace ns has used up"), "{}", warning.message);
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        assert_eq!(end.message, "no session was refused for 60 s");
    }

    #[test]
    fn a_loop_and_a_source_with_its_share_are_told_with_the_reason_that_metrics_have() {
        let (of, warning) = about(Cause::Source, (id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.ends_with("(reason SourceShare)"), "{}", warning.message);
        let (_, end) = about(Cause::Source, (id("a"), Change::Left));
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        let (of, warning) = about(Cause::Loop, (id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "loop"));
        assert!(warning.message.ends_with("(reason Loop)"), "{}", warning.message);
        let (_, end) = about(Cause::Loop, (id("a"), Change::Left));
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
