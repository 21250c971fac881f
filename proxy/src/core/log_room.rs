//! Whether logs fit into the folder that they share.

use std::collections::BTreeMap;

use proxy_api::ListenerId;

/// The logs that find no room beside others, and why, of those that are wanted with so many bytes. `open` has the
/// bytes that open logs may have now. Those that want fewer leave the rest to all; otherwise who comes first has the
/// room, and an open log that finds none for more bytes keeps what it has.
#[must_use]
pub fn without_room(
    room: u64,
    mut open: BTreeMap<ListenerId, u64>,
    wanted: &[(ListenerId, u64)],
) -> BTreeMap<ListenerId, String> {
    for (id, bytes) in wanted {
        if let Some(most) = open.get_mut(id) {
            *most = (*most).min(*bytes);
        }
    }
    let mut failed = BTreeMap::new();
    for (id, bytes) in wanted {
        let others = open.iter().filter(|(other, _)| *other != id).map(|(_, most)| *most);
        match fits(*bytes, room, others.fold(0, u64::saturating_add)) {
            Ok(()) => {
                open.insert(id.clone(), *bytes);
            }
            Err(why) => {
                failed.insert(id.clone(), why);
            }
        }
    }
    failed
}

/// Whether a log that may have `wanted` bytes fits into this room beside others that may have `taken` bytes together.
fn fits(wanted: u64, room: u64, taken: u64) -> Result<(), String> {
    let left = room.saturating_sub(taken);
    if wanted <= left {
        return Ok(());
    }
    Err(format!(
        "the log and its dead letters may take {wanted} bytes, but only {left} of {room} bytes are left beside the logs \
         of other listeners: lower durable.store.disk.maxBytes of this listener, or of another one"
    ))
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;

    #[test]
    fn a_log_fits_where_its_bounds_and_those_of_other_logs_do() {
        let most = 32 << 20;
        assert_eq!(fits(most, 33 << 20, 1 << 20), Ok(()));
        let why = fits(most, 33 << 20, (1 << 20) + 1).expect_err("a byte too few");
        assert!(why.contains("33554431 of 34603008 bytes are left"), "{why}");
        assert!(fits(most, 1, u64::MAX).is_err());
    }

    #[test]
    fn a_log_may_grow_into_the_room_that_another_one_leaves_at_the_same_time() {
        let id = |name: &str| ListenerId::new(Origin::port_forward("ns", "f"), name);
        let failed = |open: &[(&str, u64)], wanted: &[(&str, u64)]| {
            let open = open.iter().map(|(name, bytes)| (id(name), *bytes)).collect();
            let wanted: Vec<(ListenerId, u64)> = wanted.iter().map(|(name, bytes)| (id(name), *bytes)).collect();
            without_room(10, open, &wanted).into_keys().collect::<Vec<_>>()
        };
        let open = [("a", 4), ("b", 6)];
        assert!(failed(&open, &[("a", 6), ("b", 4)]).is_empty());
        assert_eq!(failed(&open, &[("a", 6), ("b", 6)]), [id("a")], "it keeps what it has");
        assert_eq!(failed(&open, &[("a", 1), ("b", 6), ("c", 4), ("d", 3)]), [id("c")]);
        assert_eq!(failed(&open, &[("c", 1)]), [id("c")], "the others stay");
    }
}
