//! Whether logs fit into the folder that they share, and into the share of their namespace.

use std::collections::{BTreeMap, BTreeSet};

use proxy_api::ListenerId;

/// The part of the room that a namespace may use while there are others.
const PART: u64 = 2;

/// The room that a listener needs for its log.
#[derive(Clone, Debug)]
pub struct Need {
    /// The listener.
    pub id: ListenerId,
    /// The most bytes of its log.
    pub bytes: u64,
    /// The most bytes of all logs in its namespace together, if the gateway sets that.
    pub of_namespace: Option<u64>,
}

/// The wanted logs that find no room beside others, with the reasons. `open` has the most bytes of each open log, and
/// `held` the bytes that logs have on the disk, open or not: a removed listener leaves some. A log that asks for fewer
/// bytes than its bound frees the rest for all, except its bytes on the disk. Otherwise, logs get room in their order,
/// within the share of their namespace, and an open log that finds no room for more bytes keeps its bound.
#[must_use]
pub fn without_room(
    room: u64,
    mut open: BTreeMap<ListenerId, u64>,
    held: &BTreeMap<ListenerId, u64>,
    wanted: &[Need],
) -> BTreeMap<ListenerId, String> {
    for Need { id, bytes, .. } in wanted {
        if let Some(most) = open.get_mut(id) {
            *most = (*most).min(*bytes);
        }
    }
    let shares = shares(room, &open, wanted);
    let mut failed = BTreeMap::new();
    for Need { id, bytes, .. } in wanted {
        if open.get(id) == Some(bytes) {
            continue;
        }
        let namespace = id.origin.namespace.as_str();
        let others = || taken(&open, held).filter(|(other, _)| *other != id);
        let of_all = others().map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
        let of_namespace = others().filter(|(other, _)| other.origin.namespace == namespace);
        let of_namespace = of_namespace.map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
        let share = shares.get(namespace).copied();
        match fits_share(*bytes, share, of_namespace, namespace).and_then(|()| fits(*bytes, room, of_all)) {
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

/// The bytes of the room that each log takes: its bound, or its bytes on the disk if they are more.
fn taken<'a>(
    open: &'a BTreeMap<ListenerId, u64>,
    held: &'a BTreeMap<ListenerId, u64>,
) -> impl Iterator<Item = (&'a ListenerId, u64)> {
    let may_have = open.iter().map(|(id, most)| (id, held.get(id).map_or(*most, |bytes| *bytes.max(most))));
    let left = held.iter().filter(|(id, _)| !open.contains_key(*id)).map(|(id, bytes)| (id, *bytes));
    may_have.chain(left)
}

/// The shares of the namespaces of `wanted`, in bytes: the smallest share that a listener carries, or otherwise half of
/// the room while several namespaces have logs. A namespace that is not in the result may use all.
fn shares<'a>(room: u64, open: &BTreeMap<ListenerId, u64>, wanted: &'a [Need]) -> BTreeMap<&'a str, u64> {
    let wants = wanted.iter().filter(|need| need.bytes > 0).map(|need| &need.id);
    let has = open.iter().filter(|(_, most)| **most > 0).map(|(id, _)| id);
    let namespaces: BTreeSet<&str> = has.chain(wants).map(|id| id.origin.namespace.as_str()).collect();
    let mut shares = BTreeMap::new();
    for need in wanted {
        if let Some(said) = need.of_namespace {
            let share = shares.entry(need.id.origin.namespace.as_str()).or_insert(said);
            *share = said.min(*share);
        }
    }
    if namespaces.len() > 1 {
        for need in wanted {
            shares.entry(need.id.origin.namespace.as_str()).or_insert(room / PART);
        }
    }
    shares
}

/// Whether a log of `wanted` bytes fits into the share of its namespace, whose other logs may have `taken` bytes.
fn fits_share(wanted: u64, share: Option<u64>, taken: u64, namespace: &str) -> Result<(), String> {
    let Some(share) = share else { return Ok(()) };
    let left = share.saturating_sub(taken);
    if wanted <= left {
        return Ok(());
    }
    Err(format!(
        "the log and its dead letters may grow to {wanted} bytes, but only {left} of {share} bytes are left: the other \
         logs of namespace {namespace} in this proxy, including those of removed listeners, have the rest; lower \
         durable.store.disk.maxBytes of its listeners, or have the owner of the gateway raise maxLogBytes of the \
         namespace in spec.allowedForwards.tenants"
    ))
}

/// Whether a log of `wanted` bytes fits into this room beside others that may have `taken` bytes together.
fn fits(wanted: u64, room: u64, taken: u64) -> Result<(), String> {
    let left = room.saturating_sub(taken);
    if wanted <= left {
        return Ok(());
    }
    Err(format!(
        "the log and its dead letters may grow to {wanted} bytes, but only {left} of {room} bytes are left: the logs \
         of other listeners, including removed ones, have the rest; lower durable.store.disk.maxBytes of this \
         listener, or of another one"
    ))
}

#[cfg(test)]
mod tests {
    use proxy_api::Origin;

    use super::*;

    fn id(namespace: &str, name: &str) -> ListenerId {
        ListenerId::new(Origin::port_forward(namespace, "f"), name)
    }

    fn bytes_of(logs: &[(&str, &str, u64)]) -> BTreeMap<ListenerId, u64> {
        logs.iter().map(|(namespace, name, bytes)| (id(namespace, name), *bytes)).collect()
    }

    /// The listeners that find no room within 10 bytes, as `namespace/listener`.
    fn failed(open: &[(&str, &str, u64)], wanted: &[(&str, &str, u64)], said: Option<u64>) -> Vec<String> {
        failed_beside(&[], open, wanted, said)
    }

    /// Like `failed`, beside logs that have this many bytes on the disk.
    fn failed_beside(
        held: &[(&str, &str, u64)],
        open: &[(&str, &str, u64)],
        wanted: &[(&str, &str, u64)],
        said: Option<u64>,
    ) -> Vec<String> {
        let need = |(namespace, name, bytes): &(&str, &str, u64)| Need {
            id: id(namespace, name),
            bytes: *bytes,
            of_namespace: said.filter(|_| *namespace == "ns"),
        };
        let wanted: Vec<Need> = wanted.iter().map(need).collect();
        let failed = without_room(10, bytes_of(open), &bytes_of(held), &wanted).into_keys();
        failed.map(|id| format!("{}/{}", id.origin.namespace, id.listener)).collect()
    }

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
        let failed = |wanted: &[(&str, &str, u64)]| failed(&[("ns", "a", 4), ("ns", "b", 6)], wanted, None);
        assert!(failed(&[("ns", "a", 6), ("ns", "b", 4)]).is_empty());
        assert_eq!(failed(&[("ns", "a", 6), ("ns", "b", 6)]), ["ns/a"], "it keeps what it has");
        assert_eq!(failed(&[("ns", "a", 1), ("ns", "b", 6), ("ns", "c", 4), ("ns", "d", 3)]), ["ns/c"]);
        assert_eq!(failed(&[("ns", "c", 1)]), ["ns/c"], "the others stay");
    }

    // C9
    #[test]
    fn a_namespace_beside_others_has_half_of_the_room_for_logs_and_no_open_log_is_closed_for_that() {
        assert!(failed(&[], &[("ns", "a", 6), ("ns", "b", 4)], None).is_empty(), "it is alone");
        let both = [("ns", "a", 5), ("ns", "b", 1), ("other", "a", 5)];
        assert_eq!(failed(&[], &both, None), ["ns/b"]);
        assert!(failed(&[("ns", "a", 5), ("ns", "b", 1)], &both[..2], None).is_empty());
        assert_eq!(failed(&[("ns", "a", 5), ("ns", "b", 1)], &both, None), ["other/a"], "it keeps what it has");
        assert_eq!(failed(&[("ns", "a", 5)], &[("ns", "b", 1), ("other", "a", 5)], None), ["ns/b"]);
        assert!(failed(&[("ns", "a", 6)], &[("other", "stream", 0), ("ns", "b", 4)], None).is_empty(), "no disk");
        assert!(
            failed(&[("other", "stream", 0)], &[("ns", "a", 10)], None).is_empty(),
            "an open one takes none either"
        );
    }

    // C9
    #[test]
    fn what_removed_listeners_leave_on_the_disk_counts_for_their_namespace_and_for_all() {
        let left = [("ns", "gone", 4)];
        let both = [("ns", "a", 2), ("other", "a", 4)];
        assert_eq!(failed_beside(&left, &[], &both, None), ["ns/a"], "its half is five bytes");
        assert!(failed_beside(&left, &[], &[("ns", "a", 1), ("other", "a", 5)], None).is_empty());
        assert_eq!(failed_beside(&left, &[], &[("other", "a", 7)], None), ["other/a"], "the disk has ten bytes");
        assert!(failed_beside(&left, &[], &[("other", "a", 6)], None).is_empty(), "no log of ns is wanted");
        assert!(failed_beside(&left, &[], &[("ns", "gone", 10)], None).is_empty(), "its own bytes are not in its way");
    }

    // C9
    #[test]
    fn a_log_whose_bound_is_smaller_than_what_it_has_on_the_disk_takes_what_it_has() {
        let held = [("ns", "a", 8)];
        let wanted = [("ns", "a", 1), ("ns", "b", 3)];
        assert_eq!(failed_beside(&held, &[], &wanted, None), ["ns/b"], "it was removed and is there again");
        assert_eq!(failed_beside(&held, &[("ns", "a", 9)], &wanted, None), ["ns/b"], "it becomes smaller");
        assert!(failed_beside(&held, &[("ns", "a", 9)], &[("ns", "a", 1), ("ns", "b", 2)], None).is_empty());
    }

    #[test]
    fn the_smallest_share_that_a_listener_carries_counts_for_its_namespace() {
        let need = |namespace: &str, name: &str, of_namespace| Need {
            id: ListenerId::new(Origin::port_forward(namespace, "f"), name),
            bytes: 1,
            of_namespace,
        };
        // A listener that has not changed yet may carry the share from before.
        let wanted =
            [need("ns", "a", Some(7)), need("ns", "b", Some(3)), need("ns", "c", Some(5)), need("other", "a", None)];
        assert_eq!(shares(11, &BTreeMap::new(), &wanted), BTreeMap::from([("ns", 3), ("other", 5)]));
        assert_eq!(shares(11, &BTreeMap::new(), &wanted[3..]), BTreeMap::new(), "it is alone");
    }

    #[test]
    fn the_gateway_may_give_a_namespace_another_part_of_the_room_for_logs() {
        let wanted = [("ns", "a", 7), ("other", "a", 3)];
        assert_eq!(failed(&[], &wanted, None), ["ns/a"]);
        assert!(failed(&[], &wanted, Some(7)).is_empty());
        assert_eq!(failed(&[], &wanted[..1], Some(6)), ["ns/a"], "also where it is alone");
        assert_eq!(fits_share(4, Some(6), 2, "ns"), Ok(()));
        assert_eq!(fits_share(7, None, 2, "ns"), Ok(()), "there is no share");
        let why = fits_share(7, Some(6), 2, "ns").expect_err("too much");
        assert!(why.contains("only 4 of 6 bytes are left") && why.contains("maxLogBytes of the namespace"), "{why}");
    }
}
