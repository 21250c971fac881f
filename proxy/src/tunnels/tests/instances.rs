//! Which instances of agents streams are opened on.

use super::*;

#[test]
fn streams_are_opened_on_instances_with_a_connection_or_if_there_is_none_on_those_that_wait() {
    let views = [
        view("a", "lost", false, false),
        view("a", "one", true, false),
        view("a", "other", false, false),
        view("a", "two", true, false),
        view("b", "lost", false, false),
        view("b", "leaves", true, true),
        view("c", "leaves", true, true),
    ];
    let expected: [(&str, &[&str]); 2] = [("a", &["one", "two"]), ("b", &["lost"])];
    let names = |all: &[&str]| -> BTreeSet<Arc<str>> { all.iter().map(|name| Arc::from(*name)).collect() };
    let expected = expected.into_iter().map(|(uid, all)| (Arc::from(uid), names(all))).collect();
    assert_eq!(connected(&views), Instances(expected));
}
