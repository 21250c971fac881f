//! What the control thread asks of the thread of durable listeners.

use std::sync::Arc;

use proxy_api::{Listener, ListenerId, Target};
use tokio::sync::oneshot;

use crate::{
    shared::Shared,
    threads::{Command, WorkerHandle},
};

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Open the log of a listener, unless it is open.
    Open {
        /// The listener.
        id: ListenerId,
        /// Its spec.
        spec: Arc<Listener>,
        /// Hears why there is no log, if so.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Run these durable listeners, and no others.
    Run(Vec<Arc<Shared>>),
}

/// Opens the log of a durable listener, unless it is open.
///
/// # Errors
/// Why the listener cannot run, and what to do.
pub async fn open(thread: Option<&WorkerHandle>, id: &ListenerId, spec: &Arc<Listener>) -> Result<(), String> {
    let Some(thread) = thread else { return Err(nowhere().to_owned()) };
    if let Some(unfit) = unfit(spec) {
        return Err(unfit);
    }
    let (done, opened) = oneshot::channel();
    thread.send(Command::Keep(Ask::Open { id: id.clone(), spec: spec.clone(), done })).await;
    opened.await.unwrap_or_else(|_| Err("the thread of durable listeners has ended: restart the process".to_owned()))
}

/// Why no durable listener runs.
const fn nowhere() -> &'static str {
    if cfg!(feature = "durable") {
        "a durable listener needs a folder for its messages: start portlane run with --data DIR, or set PORTLANE_DATA"
    } else {
        "this build runs no durable listeners: install one that does"
    }
}

/// What a durable listener has that does not work in this version, if anything: to ignore it would let in or send what
/// the settings forbid.
fn unfit(spec: &Listener) -> Option<String> {
    let limits = spec.limits.as_deref();
    let limit = if limits.is_some_and(|limits| limits.new_connections_per_second.is_some()) {
        "limits.newConnectionsPerSecond"
    } else if limits.is_some_and(|limits| limits.bytes_per_second.is_some()) {
        "limits.bytesPerSecond"
    } else {
        let behind_agent = spec.backends.iter().find(|backend| matches!(backend.target, Target::Tunnel { .. }))?;
        return Some(format!(
            "a durable listener does not send through agents in this version: give it another backend than {}",
            behind_agent.id
        ));
    };
    Some(format!("{limit} does not work for durable listeners in this version: remove it"))
}

#[cfg(test)]
mod tests {
    use proxy_api::{Backend, Configuration, Limits};

    use super::*;

    fn listener() -> Listener {
        let text = include_str!("../../proxy-api/tests/documents/v1.yaml");
        let document = Configuration::decode(text.as_bytes()).expect("v1");
        Listener { limits: None, ..document.supported().next().expect("one").1.clone() }
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
        assert!(words.ends_with("another backend than tunnel/home"), "{words}");
    }

    #[tokio::test]
    async fn without_a_folder_the_words_name_the_option() {
        let id = ListenerId::new(proxy_api::Origin::port_forward("ns", "f"), "l");
        let why = open(None, &id, &Arc::new(listener())).await.expect_err("no thread");
        assert_eq!(why.contains("--data DIR"), cfg!(feature = "durable"), "{why}");
    }
}
