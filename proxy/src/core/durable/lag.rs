//! The lag of durable listeners, as reported to the admin address and the operator.

use std::{cmp::Reverse, collections::BTreeMap};

use proxy_api::{Lag, ListenerId, LiveSessions, MAX_LAGS, Selection};

use crate::core::durable::delivery::Seen;

/// The lag from the data about a listener.
#[must_use]
pub fn of(id: &ListenerId, seen: &Seen) -> Lag {
    // Metrics count these two separately.
    let others = [("KernelDrops", seen.kernel_drops), ("Lost", seen.lost)];
    let reasons = seen.dropped.iter().copied().chain(others).filter(|(_, count)| *count > 0);
    let dropped_by_reason: BTreeMap<String, u64> = reasons.map(|(reason, count)| (reason.to_owned(), count)).collect();
    Lag {
        listener: id.clone(),
        delivery: seen.delivery.into(),
        oldest_seconds: seen.oldest_seconds,
        backlog: seen.backlog,
        log_bytes: seen.bytes,
        received: seen.received,
        delivered: seen.delivered,
        resent: seen.resent,
        dropped: dropped_by_reason.values().sum(),
        dropped_by_reason,
        dead_lettered: seen.dead_lettered,
        lanes: seen.lanes,
        error: seen.error.clone().unwrap_or_default(),
    }
}

/// The answer to an inquiry about durable listeners. If there are too many, those that deliver worst are listed.
#[must_use]
pub fn answer(mut all: Vec<Lag>, selection: &Selection) -> LiveSessions {
    all.retain(|lag| selection.has(&lag.listener, None));
    let total = all.len() as u64;
    all.sort_by_key(|lag| Reverse((lag.delivery, lag.oldest_seconds, lag.backlog)));
    all.truncate(MAX_LAGS);
    LiveSessions { total, lag: Some(all), ..LiveSessions::default() }
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;
    use crate::core::durable::delivery::Delivery;

    fn lag(forward: &str, name: &str, seen: &Seen) -> Lag {
        of(&ListenerId::new(Origin::port_forward("shop", forward), name), seen)
    }

    #[test]
    fn every_message_that_is_gone_has_a_reason_and_reasons_without_a_message_are_left_out() {
        let dropped = vec![("TooLong", 0), ("Full", 3)];
        let seen =
            Seen { dropped, kernel_drops: 4, lost: 5, lanes: 2, error: Some("refused".to_owned()), ..Seen::default() };
        let lag = lag("logs", "udp", &seen);
        let reasons: Vec<(&str, u64)> =
            lag.dropped_by_reason.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!((lag.dropped, reasons), (12, vec![("Full", 3), ("KernelDrops", 4), ("Lost", 5)]));
        assert_eq!((lag.lanes, lag.error.as_str()), (2, "refused"));
    }

    #[test]
    fn an_inquiry_is_told_the_listeners_of_its_forward_and_none_is_an_answer_too() {
        let seen = Seen::default();
        let all = || vec![lag("logs", "udp", &seen), lag("logs", "tcp", &seen), lag("audit", "udp", &seen)];
        let of_logs = Selection { origin: Some(Origin::port_forward("shop", "logs")), ..Selection::default() };
        let told = answer(all(), &of_logs);
        assert_eq!((told.total, told.lag.map(|lag| lag.len())), (2, Some(2)));
        let elsewhere = Selection { namespace: Some("other".to_owned()), ..Selection::default() };
        let told = answer(all(), &elsewhere);
        assert_eq!((told.total, told.lag), (0, Some(Vec::new())));
    }

    #[test]
    fn of_too_many_listeners_those_that_deliver_worst_are_told_and_all_are_counted() {
        let with = |delivery: Delivery, oldest_seconds: u64| Seen { delivery, oldest_seconds, ..Seen::default() };
        let mut all: Vec<Lag> =
            (0..MAX_LAGS).map(|at| lag("logs", &format!("l{at}"), &with(Delivery::Flowing, 0))).collect();
        all.push(lag("logs", "behind", &with(Delivery::Behind, 900)));
        all.push(lag("logs", "stalled", &with(Delivery::Stalled, 40)));
        let told = answer(all, &Selection::default());
        let lag = told.lag.expect("durable listeners");
        assert_eq!((told.total, lag.len()), (MAX_LAGS as u64 + 2, MAX_LAGS));
        let first: Vec<&str> = lag.iter().take(2).map(|lag| lag.listener.listener.as_str()).collect();
        assert_eq!(first, ["stalled", "behind"]);
    }
}
