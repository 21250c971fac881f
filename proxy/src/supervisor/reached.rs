//! Notices about listeners that refuse sessions, or whose names wait, because the share of their namespace is used up.

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
                "sessions are refused: namespace {} has used up its share of this proxy, or leaves what is free to other \
                 namespaces (reason TenantLimit)",
                id.origin.namespace
            );
            notice(Level::Warn, "limit_reached", &id, message)
        }
        Change::Left => notice(Level::Info, "limit_left", &id, format!("no session was refused for {LASTS} s")),
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
    fn lookups_that_are_used_up_are_told_with_the_namespace() {
        let (of, warning) = about_lookups((id("a"), Change::Reached));
        assert_eq!((of, warning.level, warning.event), (id("a"), Level::Warn, "limit_reached"));
        assert!(warning.message.contains("namespace ns has used up its lookups"), "{}", warning.message);
        let (_, end) = about_lookups((id("a"), Change::Left));
        assert_eq!((end.level, end.event), (Level::Info, "limit_left"));
        assert_eq!(end.message, "no name has waited long for 60 s");
    }
}
