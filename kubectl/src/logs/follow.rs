//! Follows logs, including those of containers that start later.

use std::{collections::BTreeSet, io, time::Duration};

use futures_util::{AsyncBufRead, StreamExt, stream::FuturesUnordered};
use kube::api::LogParams;
use kubectl_core::{
    access::Unknown,
    logs::{Start, running, starts},
    placement::PodQuery,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{Line, Log, OPENED, PODS, WAITING, Wanted, list, open, read};
use crate::{
    cluster::Cluster,
    error::Error,
    output::{note, write},
};

/// Interval between two checks for containers that have started.
const LOOK: Duration = Duration::from_secs(3);
/// Longest time without an open log: enough for a pod to be replaced.
const PATIENCE: Duration = Duration::from_secs(30);

/// The state of following a forward's logs.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Runs of containers whose logs were opened.
    pub(super) opened: BTreeSet<Start>,
    /// Problems that were reported.
    pub(super) problems: BTreeSet<String>,
}

impl Known {
    /// Reports a problem once.
    pub(super) fn report(&mut self, why: &Unknown) {
        let problem = why.to_string();
        if !self.problems.contains(&problem) {
            note(&problem);
            self.problems.insert(problem);
        }
    }
}

/// Prints the records of these logs, and of those of containers that start later, as they arrive. Ends when the output
/// is closed, or with false when no log is open any more.
pub(super) async fn run(
    cluster: &Cluster,
    query: &PodQuery,
    wanted: Wanted<'_>,
    logs: Vec<(String, Log)>,
    mut known: Known,
) -> Result<bool, Error> {
    let (new, later) = mpsc::channel(OPENED);
    let (out, mut lines) = mpsc::channel::<Line>(WAITING);
    let looking = async {
        let mut pace = interval(LOOK);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            if !look(cluster, query, &new, &mut known).await {
                break;
            }
        }
    };
    // A slow request must not delay the records of open logs.
    let following = async {
        tokio::select! {
            is_complete = follow(logs, later, wanted, out, PATIENCE) => is_complete,
            () = looking => true,
        }
    };
    let printing = async move {
        while let Some(line) = lines.recv().await {
            if !write(&line.text)? {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    let (is_complete, printed) = tokio::join!(following, printing);
    printed?;
    Ok(is_complete)
}

/// Opens the logs of containers that have started. Returns false if the receiver is gone.
async fn look(cluster: &Cluster, query: &PodQuery, new: &mpsc::Sender<(String, Log)>, known: &mut Known) -> bool {
    let listed = match list(cluster, query).await {
        Ok(listed) => listed,
        Err(why) => {
            known.report(&why);
            return true;
        }
    };
    let there: BTreeSet<Start> = starts(&listed.items, query.container).collect();
    known.opened.retain(|start| there.contains(start));
    // The log is read from its beginning: the container has started since the last check.
    let params = LogParams { container: Some(query.container.to_owned()), follow: true, ..LogParams::default() };
    for start in running(&listed.items, query.container) {
        if known.opened.contains(&start) {
            continue;
        }
        match open(cluster, &query.namespace, &start.pod, &params).await {
            Ok(log) => {
                if new.send((start.pod.clone(), log)).await.is_err() {
                    return false;
                }
                known.opened.insert(start);
            }
            Err(why) => known.report(&why),
        }
    }
    true
}

/// Sends the records of these logs and of later ones, until the receiver is gone or no log has been open for as long as
/// `patience`. Returns whether each log was read to its end.
async fn follow<S: AsyncBufRead + Unpin>(
    logs: Vec<(String, S)>,
    mut later: mpsc::Receiver<(String, S)>,
    wanted: Wanted<'_>,
    out: mpsc::Sender<Line>,
    patience: Duration,
) -> bool {
    let follow = |(pod, log): (String, S)| read(pod, log, wanted, None, out.clone());
    let mut open: FuturesUnordered<_> = logs.into_iter().map(follow).collect();
    let (mut is_complete, mut end) = (true, Instant::now() + patience);
    loop {
        let is_idle = open.is_empty();
        tokio::select! {
            // The order matters: a closed receiver ends all logs, and a log that waits to be followed precedes the end.
            biased;
            () = out.closed() => return is_complete,
            Some(is_read) = open.next() => {
                is_complete &= is_read;
                if open.is_empty() {
                    end = Instant::now() + patience;
                    let seconds = patience.as_secs();
                    note(&format!("every log has ended; waiting {seconds} s for a proxy of PortForward {}", wanted.key));
                }
            }
            Some(log) = later.recv() => {
                if open.len() < PODS {
                    open.push(follow(log));
                } else {
                    is_complete = false;
                    note(&format!("the log of pod {} is not read: {PODS} logs are open", log.0));
                }
            }
            () = sleep_until(end), if is_idle => {
                note(&format!("no proxy of PortForward {} has a log to follow", wanted.key));
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::Cursor;
    use kubectl_core::logs::Filter;
    use operator_core::ObjectKey;

    use super::*;
    use crate::args::LogOutput;

    const CLOSED: &str =
        r#"{"time":"t","event":"session_closed","namespace":"shop","forward":"db","listener":"pg","reason":"Closed"}"#;

    fn log(pod: &str) -> (String, Cursor<String>) {
        (pod.to_owned(), Cursor::new(format!("{CLOSED}\n")))
    }

    #[tokio::test]
    async fn the_log_of_a_new_pod_is_followed_and_the_end_of_all_logs_is_not_a_success() {
        let (key, filter) = (ObjectKey::new("shop", "db"), Filter::default());
        let wanted = Wanted { key: &key, filter: &filter, format: LogOutput::Text };
        let (new, later) = mpsc::channel(1);
        let (out, mut lines) = mpsc::channel(4);
        let following = follow(vec![log("old")], later, wanted, out, Duration::from_millis(1));
        new.send(log("new")).await.expect("room");
        assert!(!following.await, "no log is left");
        let mut pods = Vec::new();
        while let Some(line) = lines.recv().await {
            pods.extend(line.text.split(' ').nth(1).map(str::to_owned));
        }
        pods.sort();
        assert_eq!(pods, ["new", "old"]);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_following_of_logs() {
        let (key, filter) = (ObjectKey::new("shop", "db"), Filter::default());
        let wanted = Wanted { key: &key, filter: &filter, format: LogOutput::Text };
        let (_new, later) = mpsc::channel::<(String, Cursor<String>)>(1);
        let (out, lines) = mpsc::channel(4);
        drop(lines);
        assert!(follow(Vec::new(), later, wanted, out, Duration::from_secs(60)).await, "nothing is missing");
    }
}
