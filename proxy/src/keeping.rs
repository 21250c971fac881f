//! Requests of the control thread to the thread of durable listeners.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proxy_api::{Listener, ListenerId, Target};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::commands::{
    Command, WorkerHandle,
    ask::{Ask, Wanted},
};

/// Time for logs to open. A listener whose log is not open by then does not run for now.
pub const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Opens the logs of these durable listeners concurrently, unless they are open. Returns why listeners cannot run, with
/// the remedy. A log that is not open within this time is opened in the background: ask again.
pub async fn open(
    thread: Option<&WorkerHandle>,
    listeners: Vec<(ListenerId, Arc<Listener>)>,
    within: Duration,
) -> BTreeMap<ListenerId, String> {
    let mut failed = BTreeMap::new();
    let (mut all, mut answers) = (Vec::new(), Vec::new());
    for (id, spec) in listeners {
        let unfit = if thread.is_none() { Some(nowhere().to_owned()) } else { unfit(&spec) };
        if let Some(why) = unfit {
            failed.insert(id, why);
            continue;
        }
        let (done, opened) = oneshot::channel();
        answers.push((id.clone(), opened));
        all.push(Wanted { id, spec, done });
    }
    if let Some(thread) = thread {
        thread.send(Command::Keep(Ask::Open(all))).await;
    }
    let until = Instant::now() + within;
    for (id, opened) in answers {
        let ended = || Err("the thread of durable listeners has ended: restart the process".to_owned());
        let answer = timeout_at(until, opened).await;
        if let Err(why) = answer.map_or_else(|_| Err(late()), |opened| opened.unwrap_or_else(|_| ended())) {
            failed.insert(id, why);
        }
    }
    failed
}

/// Why a listener whose log takes long to open does not run.
pub(crate) fn late() -> String {
    format!(
        "the log is not open after {} s: check the disk or the server that keeps it; the listener runs once it is open",
        OPEN_WITHIN.as_secs()
    )
}

/// Why no durable listener runs.
const fn nowhere() -> &'static str {
    if cfg!(feature = "durable") {
        "a durable listener needs a folder for its messages: start portlane run with --data DIR, or set PORTLANE_DATA"
    } else {
        "this build runs no durable listeners: install a build with durable listeners"
    }
}

/// The setting of a durable listener that does not work in this version, if any: ignoring it would let in or send data
/// that the settings forbid.
fn unfit(spec: &Listener) -> Option<String> {
    let limits = spec.limits.as_deref();
    let limit = if limits.is_some_and(|limits| limits.new_connections_per_second.is_some()) {
        "limits.newConnectionsPerSecond"
    } else if limits.is_some_and(|limits| limits.bytes_per_second.is_some()) {
        "limits.bytesPerSecond"
    } else {
        let behind_agent = spec.backends.iter().find(|backend| matches!(backend.target, Target::Tunnel { .. }))?;
        return Some(format!(
            "a durable listener does not send through agents in this version: use a backend other than {}",
            behind_agent.id
        ));
    };
    Some(format!("{limit} does not work for durable listeners in this version: remove it"))
}

#[cfg(test)]
mod tests {
    use proxy_api::{Backend, Limits};

    use super::*;
    use crate::fixtures::template;

    fn listener() -> Listener {
        Listener { limits: None, ..template() }
    }

    #[test]
    fn a_setting_that_would_be_ignored_is_named() {
        assert_eq!(unfit(&listener()), None);
        let limits = |limits: Limits| unfit(&Listener { limits: Some(Box::new(limits)), ..listener() });
        assert_eq!(limits(Limits { max_connections: Some(1), ..Limits::default() }), None);
        let rate = limits(Limits { new_connections_per_second: Some(1), ..Limits::default() });
        assert!(rate.is_some_and(|words| words.starts_with("limits.newConnectionsPerSecond ")));
        let bytes = limits(Limits { bytes_per_second: Some(1), ..Limits::default() });
        assert!(bytes.is_some_and(|words| words.starts_with("limits.bytesPerSecond ")));
        let target = Target::Tunnel { agent: "u".to_owned(), host: "h".to_owned(), port: 1 };
        let behind = Backend { id: "tunnel/home".to_owned(), weight: 1, priority: 0, check_port: None, target };
        let words = unfit(&Listener { backends: vec![behind], ..listener() }).expect("unfit");
        assert!(words.ends_with("a backend other than tunnel/home"), "{words}");
    }

    #[tokio::test]
    async fn without_a_folder_the_words_name_the_option() {
        let id = ListenerId::new(proxy_api::Origin::port_forward("ns", "f"), "l");
        let failed = open(None, vec![(id.clone(), Arc::new(listener()))], OPEN_WITHIN).await;
        let why = failed.get(&id).expect("no thread");
        assert_eq!(why.contains("--data DIR"), cfg!(feature = "durable"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_not_open_in_time_fails_its_listener_alone() {
        let (thread, mut queue) = WorkerHandle::with_queue();
        let id = |name: &str| ListenerId::new(proxy_api::Origin::port_forward("ns", "f"), name);
        let listeners = ["a", "b"].map(|name| (id(name), Arc::new(listener())));
        let answers = async {
            let Some(Command::Keep(Ask::Open(mut wanted))) = queue.recv().await else { panic!("logs are asked for") };
            let last = wanted.pop().expect("two");
            last.done.send(Ok(())).expect("it is waited for");
            // The second listener hangs.
            wanted
        };
        let (failed, _hung) = tokio::join!(open(Some(&thread), listeners.to_vec(), OPEN_WITHIN), answers);
        assert_eq!(failed, BTreeMap::from([(id("a"), late())]));
    }
}
