//! How a listener delivers, for the log.

use crate::{
    core::durable::delivery::{Delivery, Seen},
    log::Level,
};

/// The level of a log line about the delivery.
pub(super) const fn level(delivery: Delivery) -> Level {
    match delivery {
        Delivery::Flowing => Level::Info,
        Delivery::Behind | Delivery::Stalled | Delivery::Full => Level::Warn,
        Delivery::StoreFailed => Level::Error,
    }
}

/// What helps if messages are dropped because the log is full, or refused, so that RELP clients keep them.
const MAKE_ROOM: &str = "messages are dropped or refused because the log is full: make room where they are kept, raise maxBytes of durable.store, or find out why the sink does not keep up";

/// What helps if the disk of this place is full, whether messages wait, are refused or are dropped meanwhile.
pub(super) fn no_space(place: &str) -> String {
    format!(
        "the disk of {place}, or its quota, is full: free space there, or lower maxBytes of durable.store to what there is \
         space for"
    )
}

/// How a listener delivers, in words.
pub(super) fn words(seen: &Seen, why: Option<&str>) -> String {
    let Seen { delivery, backlog, oldest_seconds, .. } = seen;
    let waiting = match *backlog {
        0 => "no message waits".to_owned(),
        backlog => format!("{} waiting, the oldest for {oldest_seconds} s", proxy_api::count(backlog, "message")),
    };
    let remedy = (*delivery == Delivery::Full).then_some(MAKE_ROOM);
    let more = remedy.into_iter().chain(why);
    more.fold(format!("{delivery}: {waiting}"), |told, more| format!("{told}; {more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_helps() {
        let told = no_space("the folder /d");
        assert!(told.starts_with("the disk of the folder /d, or its quota, is full: free space there"), "{told}");
        assert!(told.contains("lower maxBytes of durable.store"), "{told}");
    }
}
