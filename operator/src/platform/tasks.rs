//! Supervision of the operator's tasks. A task that panics, or that ends although it never should, ends the process,
//! and kubelet restarts the container. Otherwise a replica without a driver could renew its Lease for ever.
//!
//! The tasks that serve single connections are not supervised: no client may end the operator.

use std::{borrow::Cow, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use tokio::{sync::mpsc, task::JoinHandle};

/// Why a task has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The task panicked. The panic hook has logged the message.
    #[error("the task '{0}' panicked; this replica exits")]
    Panicked(Cow<'static, str>),
    /// The task ended.
    #[error("the task '{0}' ended unexpectedly; this replica exits")]
    Ended(Cow<'static, str>),
}

/// The starter of tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// The channel for the first fault: further faults mostly follow from it.
    faults: mpsc::Sender<Fault>,
}

/// Receives the first fault.
#[derive(Debug)]
pub struct Supervisor {
    faults: mpsc::Receiver<Fault>,
}

impl Supervisor {
    /// Waits for the first fault.
    pub async fn fault(&mut self) -> Fault {
        match self.faults.recv().await {
            Some(fault) => fault,
            // All `Tasks` are dropped: no task can start any more, and no running task has failed.
            None => std::future::pending().await,
        }
    }
}

impl Tasks {
    /// Creates a starter of tasks, and the supervisor of these tasks.
    #[must_use]
    pub fn new() -> (Self, Supervisor) {
        let (faults, first) = mpsc::channel(1);
        (Self { faults }, Supervisor { faults: first })
    }

    /// Starts a task that should run as long as the process.
    pub fn service(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<Option<()>> {
        let (tasks, name) = (self.clone(), name.into());
        self.job(name.clone(), async move {
            work.await;
            tasks.report(Fault::Ended(name));
        })
    }

    /// Starts a task that may end, such as one that serves a channel until its senders are gone. The result is absent
    /// if the task panicked.
    pub fn job<T: Send + 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        tokio::spawn(self.watched(name, work))
    }

    /// Wraps `work` so that a panic is reported. The caller spawns the result.
    pub fn watched<T: Send + 'static>(
        &self,
        name: impl Into<Cow<'static, str>>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (tasks, name) = (self.clone(), name.into());
        async move {
            let result = AssertUnwindSafe(work).catch_unwind().await.ok();
            if result.is_none() {
                tasks.report(Fault::Panicked(name));
            }
            result
        }
    }

    /// Reports a fault of work that runs elsewhere, such as in a thread.
    pub fn report(&self, fault: Fault) {
        let _ = self.faults.try_send(fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // C4
    #[tokio::test]
    async fn a_task_that_panics_is_a_fault_with_its_name() {
        let (tasks, mut supervisor) = Tasks::new();
        let result = tasks.job("writer", async { assert_eq!(1, 2, "on purpose") }).await.expect("not cancelled");
        assert_eq!(result, None);
        assert_eq!(supervisor.fault().await, Fault::Panicked("writer".into()));
    }

    #[tokio::test]
    async fn a_service_that_ends_is_a_fault_and_a_job_that_ends_is_none() {
        let (tasks, mut supervisor) = Tasks::new();
        assert_eq!(tasks.job("job", async { 7 }).await.expect("not cancelled"), Some(7));
        tasks.service("driver", async {}).await.expect("not cancelled");
        assert_eq!(supervisor.fault().await, Fault::Ended("driver".into()), "the job came first, and is no fault");
    }

    #[tokio::test]
    async fn a_task_that_is_aborted_is_no_fault() {
        let (tasks, mut supervisor) = Tasks::new();
        let task = tasks.service("watch", std::future::pending());
        task.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
        tasks.report(Fault::Ended("other".into()));
        assert_eq!(supervisor.fault().await, Fault::Ended("other".into()));
    }
}
