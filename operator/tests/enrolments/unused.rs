//! Roots that nothing needs any more. Each set of roots belongs to a replica that begins to lead and knows nothing.

use kube::{Api, Client};
use operator::outputs::enrolments::TunnelRoots;

use super::{PER_NAMESPACE, ROOTS, Server, Writes, cluster};

const DAY: u64 = 24 * 3600;
const NOW: u64 = 1_800_000_000;

fn replica(client: &Client) -> TunnelRoots {
    TunnelRoots::new(Api::namespaced(client.clone(), "portlane"), "portlane-tunnel-roots", PER_NAMESPACE)
}

/// The keys of the roots in the Secret.
fn keys(server: &Server) -> Vec<String> {
    let secrets = server.secrets.lock().expect("not poisoned");
    secrets[ROOTS]["data"].as_object().expect("roots").keys().cloned().collect()
}

/// The roots that are recorded as unused.
fn noted(server: &Server) -> String {
    let secrets = server.secrets.lock().expect("not poisoned");
    secrets[ROOTS]["metadata"]["annotations"]["portlane.dev/unused-roots"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_root_goes_that_nothing_needs_and_one_that_is_used_stays() {
    let (server, client) = cluster().await;
    let first = replica(&client);
    let gone = first.current(("edge", "uid-gone"), NOW).await.expect("a root");
    first.current(("edge", "uid-live"), NOW).await.expect("a root");
    assert_eq!(first.remove_unused(NOW).await.expect("a look"), 0);
    assert_eq!(noted(&server), "", "both were used a moment ago");

    let next = replica(&client);
    next.current(("edge", "uid-live"), NOW).await.expect("a root");
    for day in 0..10 {
        assert_eq!(next.remove_unused(NOW + day * DAY).await.expect("a look"), 0, "day {day}");
        assert_eq!(keys(&server).len(), 2);
        assert!(noted(&server).contains("edge.uid-gone.pem") && !noted(&server).contains("uid-live"));
    }
    // Another client is faster: nothing is removed until the next look.
    server.set(Writes::Late);
    assert!(next.remove_unused(NOW + 10 * DAY).await.is_err());
    assert_eq!(keys(&server).len(), 2);
    assert_eq!(next.remove_unused(NOW + 10 * DAY).await.expect("a look"), 1);
    assert_eq!(keys(&server), ["edge.uid-live.pem"]);
    let again = next.current(("edge", "uid-gone"), NOW + 10 * DAY).await.expect("a root");
    assert!(again.fingerprint() != gone.fingerprint(), "another root");
}

#[tokio::test]
async fn a_root_that_is_noted_as_unused_signs_only_once_the_note_is_gone() {
    let (server, client) = cluster().await;
    let edge = replica(&client).current(("edge", "uid-edge"), NOW).await.expect("a root");
    assert_eq!(replica(&client).remove_unused(NOW).await.expect("a look"), 0);
    assert!(noted(&server).contains("edge.uid-edge.pem"));

    let next = replica(&client);
    server.set(Writes::Refused);
    assert!(next.current(("edge", "uid-edge"), NOW).await.is_err(), "another leader could remove it");
    assert!(noted(&server).contains("edge.uid-edge.pem"));
    server.set(Writes::Taken);
    let again = next.current(("edge", "uid-edge"), NOW).await.expect("a root");
    assert!(again.fingerprint() == edge.fingerprint(), "the same root");
    assert!(!noted(&server).contains("edge.uid-edge.pem"), "{}", noted(&server));
}
