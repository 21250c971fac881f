//! Serves one connection: attaches it to a pod, retries if the pod does not accept it, and reports failures.

use std::{net::SocketAddr, time::Duration};

use kube::{api::Portforwarder, client::UpgradeConnectionError};
use kubectl_core::forward::{
    endpoints::PodId,
    failure::{End, Failure, Refusal},
    pool::Step,
    replay::Replay,
};
use portlane::with_causes;
use tokio::{
    net::TcpStream,
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Session, reset};
use crate::forward::relay::{Outcome, PodSide, relay};

/// The time for the API server to answer the end of a connection before the connection is dropped.
const CLOSING: Duration = Duration::from_secs(1);

/// Serves one client.
pub(super) async fn serve(session: Session, mut client: TcpStream, peer: SocketAddr) {
    let shared = session.port.shared.clone();
    // Interactive requests are small, and each waits for its answer.
    let _ = client.set_nodelay(true);
    match run(&session, &mut client).await {
        Ok(end) => {
            if let Some(reason) = end.reason() {
                shared.went_wrong(reason, &format!("connection from {peer}: {end}"));
            }
            if end != End::Closed {
                reset(&client);
            }
        }
        Err(refusal) => {
            shared.went_wrong(refusal.reason(), &format!("connection from {peer}: {refusal}"));
            reset(&client);
        }
    }
}

async fn run(session: &Session, client: &mut TcpStream) -> Result<End, Refusal> {
    let (port, id) = (&session.port, session.id);
    let mut replay = Replay::default();
    loop {
        let (pod, number, mut forwarder) = attached(session).await?;
        let (stream, error) = (forwarder.take_stream(number), forwarder.take_error(number));
        let (Some(stream), Some(error)) = (stream, error) else { return Ok(End::Broken(pod.name)) };
        let mut side = PodSide { name: pod.name, stream, error: Box::pin(error) };
        let answered = || port.pool.borrow_mut().answered(id);
        let outcome = relay(client, &mut side, &mut replay, answered, port.until_pod_ends(id)).await;
        drop(side);
        close(forwarder);
        match outcome {
            Outcome::Ended(end) => return Ok(end),
            Outcome::NeverConnected(failure) => port.pool.borrow_mut().failed(id, failure, port.shared.now()),
        }
    }
}

/// Attaches a session to a pod.
async fn attached(session: &Session) -> Result<(PodId, u16, Portforwarder), Refusal> {
    let (port, id) = (&session.port, session.id);
    let at = |time: Duration| port.shared.started + time;
    let mut changes = port.changes.subscribe();
    loop {
        let step = port.pool.borrow_mut().next(id, port.shared.now());
        match step {
            Step::GiveUp(refusal) => return Err(refusal),
            Step::Wait(until) => wait(&mut changes, at(until)).await,
            Step::Attach { pod, port: number, until } => {
                let api = port.pods();
                let attempt = timeout_at(at(until), api.portforward(&pod.name, &[number])).await;
                let failure = match attempt {
                    Ok(Ok(forwarder)) => return Ok((pod, number, forwarder)),
                    Ok(Err(error)) => failure(api.namespace().unwrap_or_default(), &error),
                    Err(_) => Failure::Late,
                };
                port.pool.borrow_mut().failed(id, failure, port.shared.now());
            }
        }
    }
}

async fn wait(changes: &mut tokio::sync::watch::Receiver<()>, until: Instant) {
    tokio::select! {
        _ = changes.changed() => {}
        () = sleep_until(until) => {}
    }
}

/// Classifies the failure of an attempt.
fn failure(namespace: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => Failure::of_status(namespace, status.code, &status.message),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            Failure::of_status(namespace, status.as_u16(), &format!("the API server answers {status}"))
        }
        error => Failure::Unreachable(with_causes(error)),
    }
}

/// Closes a connection to the API server, and drops it if the API server does not answer.
fn close(forwarder: Portforwarder) {
    spawn_local(async move {
        sleep(CLOSING).await;
        forwarder.abort();
    });
}
