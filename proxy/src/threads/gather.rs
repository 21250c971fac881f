//! The live sessions of all workers in one list.

use proxy_api::{LiveSessions, Selection};
use tokio::sync::oneshot;

use crate::commands::{Command, WorkerHandle};

/// Sends the selected sessions of all workers, unless the receiver leaves before that.
pub async fn inspect(workers: Vec<WorkerHandle>, selection: Selection, mut reply: oneshot::Sender<LiveSessions>) {
    tokio::select! {
        live = of_all(&workers, &selection) => drop(reply.send(live)),
        () = reply.closed() => {}
    }
}

async fn of_all(workers: &[WorkerHandle], selection: &Selection) -> LiveSessions {
    let mut live = LiveSessions::default();
    for worker in workers {
        let (reply, answer) = oneshot::channel();
        let limit = selection.limit.saturating_sub(live.sessions.len());
        let selection = Selection { limit, ..selection.clone() };
        if worker.send(Command::Inspect { selection, reply }).await {
            live.add(answer.await.unwrap_or_default());
        }
    }
    live
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{
        sync::{mpsc, watch},
        time::timeout,
    };

    use super::*;
    use crate::{
        core::control::reports::Published,
        fixtures::process,
        metrics::Metrics,
        settings::Settings,
        supervisor::{Control, Supervisor},
        threads::Workers,
    };

    /// Longest wait for anything.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn nobody_waits_for_a_worker_that_hangs_once_the_asker_has_left() {
        // Its queue takes commands, and nothing executes them.
        let (worker, mut queue) = WorkerHandle::with_queue();
        let (reply, answer) = oneshot::channel();
        let waiting = tokio::spawn(inspect(vec![worker], Selection::default(), reply));
        let asked = timeout(PATIENCE, queue.recv()).await.expect("in time");
        drop(answer);
        timeout(PATIENCE, waiting).await.expect("in time").expect("no panic");
        assert!(matches!(asked, Some(Command::Inspect { reply, .. }) if reply.is_closed()));
    }

    #[tokio::test]
    async fn the_control_thread_goes_on_while_a_worker_hangs() {
        let (worker, _queue) = WorkerHandle::with_queue();
        let workers = Workers { handles: vec![worker], durable: None, threads: Vec::new() };
        let process = process(&Settings::default(), None);
        let (control, requests) = mpsc::channel(2);
        let (answers, answered) = mpsc::channel(1);
        let (reporter, _report) = watch::channel(Published::default());
        let metrics = Metrics::new(process.clone());
        let (agents, _) = watch::channel(Arc::default());
        let supervisor = Supervisor::new(process, workers, metrics, answers, reporter, agents, &Settings::default());
        let ask = async {
            let (reply, _live) = oneshot::channel();
            control.send(Control::Inspect(Selection::default(), reply)).await.expect("a control thread");
            let (reply, current) = oneshot::channel();
            control.send(Control::Current(reply)).await.expect("a control thread");
            timeout(PATIENCE, current).await.expect("in time").expect("an answer")
        };
        tokio::select! {
            () = Box::pin(supervisor.run(requests, answered, Arc::default())) => panic!("the control thread has ended"),
            _ = ask => {}
        }
    }
}
