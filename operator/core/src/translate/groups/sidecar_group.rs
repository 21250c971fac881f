//! The identity of a sidecar group.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    sync::Arc,
};

use proxy_api::{Origin, Transport};

use super::selectors::Selected;

/// The number of names, and of ports of the app, by which two groups are compared before their fingerprints. A person
/// reads short lists of groups in the order of names, and comparing two groups takes the same time however many names
/// they have.
const LEADING: usize = 8;

/// The identity of a sidecar group: a namespace, the names of the forwards that select its pods, and the ports of the
/// app in these pods.
///
/// Pods of one group share one copy, so that a clone is cheap and names are compared only if two groups have the same
/// fingerprint and are not the same copy.
#[derive(Clone, Debug)]
pub struct SidecarGroup(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    namespace: String,
    /// Names of the forwards, sorted.
    forwards: Box<[Arc<str>]>,
    /// Ports that the app listens on, which no listener of the group can claim.
    app_ports: BTreeSet<(Transport, u16)>,
    /// The sum of the hashes of all names and ports. Different groups may have the same sum.
    fingerprint: u64,
}

impl SidecarGroup {
    pub(super) fn new(namespace: &str, selected: Selected, app_ports: &BTreeSet<(Transport, u16)>) -> Self {
        let of_ports = app_ports.iter().map(|port| of_port(*port)).fold(0, u64::wrapping_add);
        Self(Arc::new(Parts {
            namespace: namespace.to_owned(),
            forwards: selected.names,
            app_ports: app_ports.clone(),
            fingerprint: selected.fingerprint.wrapping_add(of_ports),
        }))
    }

    /// The namespace of the pods and of the forwards.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Ports that the app listens on.
    pub(crate) fn app_ports(&self) -> &BTreeSet<(Transport, u16)> {
        &self.0.app_ports
    }

    /// Names of the forwards that select the pods, sorted.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.0.forwards
    }

    /// Whether the forward of this name selects the pods.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.forwards.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }

    /// The forwards that select the pods.
    pub(crate) fn forwards(&self) -> impl Iterator<Item = Origin> + '_ {
        self.0.forwards.iter().map(move |name| Origin::port_forward(&*self.0.namespace, &**name))
    }

    /// The forwards of the group among `origins`. The work follows the number of those in the namespace.
    pub(crate) fn among<'a>(&'a self, origins: &'a BTreeSet<Origin>) -> impl Iterator<Item = &'a Origin> {
        let first = Origin::port_forward(self.namespace(), "");
        let kind = first.kind.clone();
        let here = origins.range(first..);
        here.take_while(move |origin| origin.kind == kind && origin.namespace == self.namespace())
            .filter(move |origin| self.has(&origin.name))
    }

    fn by_contents(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        tests::COMPARED.with(|compared| compared.set(compared.get() + 1));
        (&self.0.forwards, &self.0.app_ports).cmp(&(&other.0.forwards, &other.0.app_ports))
    }
}

/// A hash of a port of the app: an odd constant spreads neighbours over all bits.
fn of_port((transport, port): (Transport, u16)) -> u64 {
    let number = (u64::from(port) << 1) | u64::from(transport == Transport::Udp);
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn leading<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    all.into_iter().take(LEADING)
}

impl Ord for SidecarGroup {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        let (one, two) = (&*self.0, &*other.0);
        let by_names = || leading(one.forwards.iter()).cmp(leading(two.forwards.iter()));
        let by_ports = || leading(&one.app_ports).cmp(leading(&two.app_ports));
        let by_namespace = one.namespace.cmp(&two.namespace);
        let by_fingerprint = || one.fingerprint.cmp(&two.fingerprint);
        let apart = by_namespace.then_with(by_names).then_with(by_ports).then_with(by_fingerprint);
        apart.then_with(|| self.by_contents(other))
    }
}

impl PartialOrd for SidecarGroup {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SidecarGroup {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SidecarGroup {}

impl Display for SidecarGroup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Parts { namespace, forwards, app_ports, .. } = &*self.0;
        write!(f, "{namespace}/{}", forwards.join("+"))?;
        app_ports.iter().try_for_each(|(transport, port)| write!(f, "/app:{port}/{transport}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        cmp::Ordering::{Equal, Greater, Less},
    };

    use super::*;

    thread_local! {
        /// Comparisons that looked at all names.
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    fn group(names: impl IntoIterator<Item = String>, app_ports: &[(Transport, u16)]) -> SidecarGroup {
        let names: Box<[Arc<str>]> = names.into_iter().map(Into::into).collect();
        let fingerprint = names.iter().map(|name| crate::hash::hash(name)).fold(0, u64::wrapping_add);
        SidecarGroup::new("ns", Selected { names, fingerprint }, &app_ports.iter().copied().collect())
    }

    fn many(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|at| format!("f{at:04}"))
    }

    #[test]
    fn groups_of_thousands_of_names_are_compared_without_their_names() {
        let (one, more) = (group(many(2000), &[]), group(many(2001), &[]));
        let same = one.clone();
        let before = COMPARED.get();
        assert!(one == same && one != more && (one < more) != (more < one));
        assert_eq!(COMPARED.get() - before, 0);
        assert_eq!(one, group(many(2000), &[]), "another copy of the same names is the same group");
        assert_eq!(COMPARED.get() - before, 1);
    }

    #[test]
    fn each_port_of_the_app_has_a_hash_of_its_own_that_changes_the_fingerprint() {
        let ports = (0..100).flat_map(|port| [(Transport::Tcp, port), (Transport::Udp, port)]);
        let hashes: BTreeSet<u64> = ports.map(of_port).collect();
        assert_eq!(hashes.len(), 200);
        assert!(!hashes.contains(&0));
    }

    #[test]
    fn short_lists_of_names_are_in_their_order_and_ports_of_the_app_come_after_the_names() {
        let of = |names: &[&str], ports: &[(Transport, u16)]| group(names.iter().map(|it| (*it).to_owned()), ports);
        let mut groups = [
            of(&["b"], &[]),
            of(&["a", "b"], &[(Transport::Tcp, 80)]),
            of(&["a"], &[(Transport::Udp, 53)]),
            of(&["a", "b"], &[]),
            of(&["a"], &[(Transport::Tcp, 80)]),
        ];
        groups.sort();
        let words: Vec<String> = groups.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["ns/a/app:80/TCP", "ns/a/app:53/UDP", "ns/a+b", "ns/a+b/app:80/TCP", "ns/b"]);
    }

    #[test]
    fn groups_with_the_same_fingerprint_are_told_apart_by_their_names() {
        let of = |last: &str| {
            let names: Vec<Arc<str>> = many(8).chain([last.to_owned()]).map(Into::into).collect();
            SidecarGroup::new("ns", Selected { names: names.into(), fingerprint: 7 }, &BTreeSet::new())
        };
        let (one, other) = (of("x"), of("y"));
        assert_eq!((one.cmp(&other), other.cmp(&one), one.cmp(&of("x"))), (Less, Greater, Equal));
        assert_ne!(one, other);
    }

    #[test]
    fn a_group_finds_its_forwards_among_others() {
        let all: BTreeSet<Origin> = [("a", "f0001"), ("ns", "f0001"), ("ns", "other"), ("ns", "f0003"), ("o", "f0001")]
            .map(|(namespace, name)| Origin::port_forward(namespace, name))
            .into();
        let group = group(many(4), &[]);
        let found: Vec<&str> = group.among(&all).map(|origin| origin.name.as_str()).collect();
        assert_eq!(found, ["f0001", "f0003"]);
        assert_eq!(group.forwards().count(), 4);
    }
}
