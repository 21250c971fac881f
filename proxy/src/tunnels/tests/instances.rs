//! Which instances of agents streams are opened on, and what agents may do.

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
    let expected: [(&str, &[&str], bool); 2] = [("a", &["one", "two"], false), ("b", &["lost"], true)];
    let names = |all: &[&str]| -> BTreeSet<Arc<str>> { all.iter().map(|name| Arc::from(*name)).collect() };
    let of_agent =
        |(uid, all, detached): (&str, &[&str], bool)| (Arc::from(uid), OfAgent { names: names(all), detached });
    assert_eq!(connected(&views), Instances(expected.into_iter().map(of_agent).collect()));
}

#[test]
fn the_list_of_an_agent_that_is_the_same_is_read_no_second_time() {
    let log = process().log.clone();
    let agents = |suspended: bool| {
        let all = [("same", home_agent(false)), ("other", home_agent(suspended))];
        BTreeMap::from(all.map(|(uid, agent)| (uid.to_owned(), agent)))
    };
    let first = rules_again(&log, &BTreeMap::new(), &BTreeMap::new(), &agents(false));
    let second = rules_again(&log, &agents(false), &first, &agents(true));
    assert!(Rc::ptr_eq(&first["same"], &second["same"]) && !Rc::ptr_eq(&first["other"], &second["other"]));
    assert!(second["other"].policy.suspended && !first["other"].policy.suspended);
}

// D12
#[tokio::test]
async fn a_session_that_hangs_holds_up_a_thread_that_is_named_then() {
    within(async {
        let bed = Bed::start();
        // At the end of time all that give signs of life have been silent for too long.
        assert!(bed.process.lives.hung(u64::MAX).contains("tunnels"));
    })
    .await;
}

#[tokio::test]
async fn sessions_share_the_memory_that_the_process_has_for_them_now() {
    within(async {
        let bed = Bed::start();
        let most = || bed.agents.seen().memory.1;
        // The instances of all agents have 32 MiB for themselves,
        let bytes = bed.process.tunnels.bytes();
        until(|| most() == bytes - (32 << 20)).await;
        // or half of what there is.
        assert_eq!(bed.process.tunnels.resize(Some(64 << 20)), 0);
        until(|| most() == 8 << 20).await;
    })
    .await;
}
