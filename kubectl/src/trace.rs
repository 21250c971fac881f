//! `kubectl portlane trace FORWARD --from POD`: reads the objects between a pod and a backend, connects to a proxy by
//! the API server's port-forward, and prints the steps.

use std::{collections::BTreeMap, time::Duration};

use crds::{Listener, PortForward};
use futures_util::{AsyncReadExt as _, FutureExt};
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
};
use kube::api::{ListParams, LogParams};
use kubectl_core::{
    access::{Fetched, Place, items},
    forward::failure::Failure,
    live::{MAX_LIMIT, Of, Request, Session, SessionList},
    logs::Record,
    nearest::nearest,
    placement::{self, gateway, key},
    render,
    status::Verdict,
    trace::{self, Facts, Found, Own, Probe, Target},
};
use operator_core::ObjectKey;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    pin,
    time::{Instant, sleep, timeout},
};

use crate::{
    args,
    cluster::{Asked, Cluster},
    describe::find,
    error::Error,
    live,
    missing::nearest_pod,
    output,
};

/// Time for the proxy to connect to a backend.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time for a message of the container runtime, or a record of the access log, after the end of a connection.
const AFTERWARDS: Duration = Duration::from_millis(500);
/// The tolerance for ages of sessions: a proxy accepts a moment after the port-forward has begun, and its live sessions
/// have whole seconds.
const SLACK: Duration = Duration::from_secs(1);
/// Age of the oldest log line that may be about the connection, in seconds.
const SINCE: i64 = 10;
/// Most lines of a log that are read.
const LINES: i64 = 1000;
/// Most bytes of a log that are read.
const BYTES: u64 = 1 << 20;

/// Prints the steps. Returns whether the connection gets through.
pub(crate) async fn run(cluster: &Cluster, args: &args::Trace) -> Result<Verdict, Error> {
    let forward = find(cluster, &args.forward).await?;
    let Some(listener) = trace::listener(&forward, args.listener.as_deref()).cloned() else {
        return Err(no_listener(&forward, args.listener.as_deref().unwrap_or_default()));
    };
    let facts = Box::pin(read(cluster, forward, &listener, client(cluster, &args.from))).await;
    let report = trace::report(&facts);
    output::print(&report, args.output.into(), render::trace)?;
    Ok(match report.stops {
        Some(_) => Verdict::Failed,
        None if report.is_complete() => Verdict::Ok,
        None => Verdict::Incomplete,
    })
}

fn no_listener(forward: &PortForward, name: &str) -> Error {
    let names: Vec<String> = forward.spec.listeners.iter().map(|listener| listener.name.clone()).collect();
    let nearest = nearest(name, names.iter().map(String::as_str)).map(str::to_owned);
    Error::NoListener { forward: key(forward).to_string(), name: name.to_owned(), names, nearest }
}

/// Parses the pod in `--from`: `POD`, `pod/POD` or `NAMESPACE/POD`.
fn client(cluster: &Cluster, from: &str) -> ObjectKey {
    let from = from.strip_prefix("pod/").unwrap_or(from);
    match from.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::new(cluster.namespace.clone(), from),
    }
}

async fn read(cluster: &Cluster, forward: PortForward, listener: &Listener, from: ObjectKey) -> Facts {
    let query = placement::pods(&forward);
    let proxies_in = Place::Namespace(query.namespace.clone());
    let service = async {
        let gateway = gateway(&forward)?;
        let place = Place::Namespace(gateway.namespace.clone());
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={}", gateway.name));
        Some(tokio::join!(
            cluster.get::<Service>(&gateway.namespace, &gateway.name),
            cluster.list::<EndpointSlice>(&place, params)
        ))
    };
    let policies = async {
        let mut policies = BTreeMap::new();
        for namespace in trace::namespaces(&forward, &from) {
            if policies.contains_key(&namespace) {
                continue;
            }
            let place = Place::Namespace(namespace.clone());
            policies.insert(namespace, cluster.list::<NetworkPolicy>(&place, ListParams::default()).await);
        }
        policies
    };
    let (pod, service, proxies, policies) = tokio::join!(
        cluster.get::<Pod>(&from.namespace, &from.name),
        service,
        cluster.list::<Pod>(&proxies_in, ListParams::default().labels(&query.labels)),
        policies,
    );
    let nearest = match &pod {
        Ok(None) => nearest_pod(cluster, &from, "").await,
        _ => None,
    };
    let probe = match &proxies {
        Err(why) => Probe::Failed(why.clone()),
        Ok(_) => match trace::target(&forward, listener, &from, items(&proxies)) {
            Ok(target) => Box::pin(probe(cluster, &forward, listener, target)).await,
            Err(why) => Probe::Skipped(why),
        },
    };
    Facts { forward, listener: listener.name.clone(), from: (from, pod), nearest, service, proxies, policies, probe }
}

/// Connects to a proxy, and observes the connection for a moment.
async fn probe(cluster: &Cluster, forward: &PortForward, listener: &Listener, target: Target) -> Probe {
    let hello = trace::hello(listener);
    let sent = u64::try_from(hello.len()).unwrap_or(u64::MAX);
    let own = Own::new(forward, &listener.name, target.pod.clone(), sent);
    let (own, known) = Box::pin(before(cluster, forward, own, &target)).await;
    // A session that is older does not belong to the connection.
    let begun = Instant::now();
    let Target { pod: ObjectKey { namespace, name }, port } = &target;
    let asked = Asked::new("get", "pods/portforward", Place::Namespace(namespace.clone()));
    let pods = cluster.pods(namespace);
    let mut forwarder = match cluster.answer(asked, pods.portforward(name, &[*port])).await {
        Ok(forwarder) => forwarder,
        Err(why) => return Probe::Failed(why),
    };
    let (Some(mut stream), Some(error)) = (forwarder.take_stream(*port), forwarder.take_error(*port)) else {
        return Probe::Skipped("the client of this program has no stream".to_owned());
    };
    let opened = Instant::now();
    // A fused future may be polled after its end.
    let error = error.fuse();
    pin!(error);
    let first = tokio::select! {
        biased;
        Some(message) = &mut error => First::Refused(message),
        first = first_byte(&mut stream, &hello) => first,
    };
    let first = match first {
        // The message of a refusal may come after the end of the stream.
        First::End => match timeout(AFTERWARDS, &mut error).await {
            Ok(Some(message)) => First::Refused(message),
            _ => First::End,
        },
        first => first,
    };
    match first {
        First::Refused(message) if !Failure::is_reset(&message) => Probe::Refused { target, message },
        First::End | First::Refused(_) => {
            let longest = begun.elapsed() + SLACK;
            // Proxies write records from a queue, so the record may be late.
            sleep(AFTERWARDS).await;
            let records = records(cluster, forward, &target).await;
            Probe::Ended { target, record: own.record(records, longest) }
        }
        First::Byte | First::Silence => {
            let session = match known {
                Ok(()) => session(cluster, forward, &own, begun, opened).await,
                // Without the earlier sessions, the session of another client could be taken for that of the
                // connection.
                Err(why) => Err(why),
            };
            Probe::Open { target, has_bytes: matches!(first, First::Byte), session }
        }
    }
}

/// Reads the sessions and records that exist before the connection, and so belong to others. The result says whether
/// the live sessions could be read.
async fn before(cluster: &Cluster, forward: &PortForward, mut own: Own, target: &Target) -> (Own, Fetched<()>) {
    let known = live::read::<SessionList>(cluster, &sessions(forward)).await;
    // Records are read later than the list: a session that has ended meanwhile is in one of them.
    own.exclude_records(&records(cluster, forward, target).await);
    let known = known.map(|list| own.exclude_sessions(&list));
    (own, known)
}

fn sessions(forward: &PortForward) -> Request {
    Request::sessions(&Of::Forward(key(forward)), MAX_LIMIT)
}

/// The first event on the stream.
enum First {
    Byte,
    End,
    Silence,
    Refused(String),
}

/// Sends the first bytes of a client, and waits for an answer.
async fn first_byte(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), hello: &[u8]) -> First {
    let answer = async {
        stream.write_all(hello).await?;
        stream.flush().await?;
        stream.read(&mut [0; 1]).await
    };
    match timeout(PATIENCE, answer).await {
        Ok(Ok(0) | Err(_)) => First::End,
        Ok(Ok(_)) => First::Byte,
        Err(_) => First::Silence,
    }
}

/// Returns the session of the connection, which was begun and opened at these times.
async fn session(
    cluster: &Cluster,
    forward: &PortForward,
    own: &Own,
    begun: Instant,
    opened: Instant,
) -> Fetched<Found<Box<Session>>> {
    let least = opened.elapsed().saturating_sub(SLACK).as_secs();
    let list = live::read::<SessionList>(cluster, &sessions(forward)).await?;
    let most = (begun.elapsed() + SLACK).as_secs();
    Ok(own.session(&list, &(least..=most)))
}

/// Reads the latest records of the access log of a proxy; empty if the log cannot be read: records only add to the
/// explanation.
async fn records(cluster: &Cluster, forward: &PortForward, target: &Target) -> Vec<Record> {
    let ObjectKey { namespace, name } = &target.pod;
    let params = LogParams {
        container: Some(placement::pods(forward).container.to_owned()),
        since_seconds: Some(SINCE),
        tail_lines: Some(LINES),
        ..LogParams::default()
    };
    let pods = cluster.pods(namespace);
    let Ok(log) = cluster.answer(Asked::log(namespace), pods.log_stream(name, &params)).await else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    let log = log.take(BYTES);
    pin!(log);
    if !matches!(timeout(cluster.deadline(), log.read_to_end(&mut bytes)).await, Ok(Ok(_))) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| Record::parse(name, line, &key(forward))).collect()
}
