//! `kubectl portlane drain FORWARD|pod/NAME`: suspends a forward or evicts a pod, and follows its sessions to their end.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use crds::PortForward;
use http::{Request, header::CONTENT_TYPE};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use kubectl_core::{
    access::{Fetched, Place},
    drain::{self, Progress, Record, State, object},
    live::{self as api, Of, SessionList},
    render::printable,
};
use operator_core::ObjectKey;
use portlane::output::{Format, json_line, yaml_document};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    args,
    cluster::{Asked, Cluster},
    error::Error,
    live::{self, REFRESH},
    missing,
    output::{note, write},
};

/// Field manager under which the API server records changes.
const MANAGER: &str = "kubectl-portlane";
/// Time until an eviction that a `PodDisruptionBudget` refuses is retried.
const RETRY: Duration = Duration::from_secs(5);

/// Drains a forward or a pod.
pub(crate) async fn run(cluster: &Cluster, args: &args::Drain) -> Result<(), Error> {
    match live::named(cluster, &args.of).await? {
        Of::Forward(key) => Box::pin(drain_forward(cluster, args, &key)).await,
        Of::Pod(key) => Box::pin(drain_pod(cluster, args, &key)).await,
    }
}

async fn drain_forward(cluster: &Cluster, args: &args::Drain, key: &ObjectKey) -> Result<(), Error> {
    let of = Of::Forward(key.clone());
    let forward = read_forward(cluster, key).await?;
    // Sessions are read first: without the live API there is no progress to follow, and nothing should change.
    let total = sessions(cluster, &of).await?.total;
    if forward.spec.suspend != Some(true) {
        confirm(&drain::forward_plan(&forward, total), args.yes)?;
        suspend(cluster, key).await?;
    }
    follow(&of, args, async || match read_forward(cluster, key).await {
        Ok(forward) => drain::forward(&forward, &sessions(cluster, &of).await),
        Err(error) => Progress::waiting(error.with_causes()),
    })
    .await
}

async fn drain_pod(cluster: &Cluster, args: &args::Drain, key: &ObjectKey) -> Result<(), Error> {
    let of = Of::Pod(key.clone());
    let Some(pod) = cluster.get::<Pod>(&key.namespace, &key.name).await? else {
        return Err(missing::no_pod(cluster, key).await);
    };
    let uid = pod.metadata.uid.as_deref();
    let no_proxy = || Error::NoProxy { pod: key.to_string() };
    if drain::pod_plan(&pod, 0).is_none() {
        return Err(no_proxy());
    }
    let total = sessions(cluster, &of).await?.total;
    let started = Instant::now();
    if pod.metadata.deletion_timestamp.is_none() {
        confirm(&drain::pod_plan(&pod, total).ok_or_else(no_proxy)?, args.yes)?;
        while let Some(refusal) = evict(cluster, key, uid).await? {
            note(&format!("eviction refused, retrying in {} s: {refusal}", RETRY.as_secs()));
            if started.elapsed() >= args.timeout() {
                return late(&of, args, Progress::waiting(refusal));
            }
            sleep(RETRY).await;
        }
    }
    follow(&of, args, async || {
        let found = cluster.get::<Pod>(&key.namespace, &key.name).await;
        drain::pod(uid, &found, &sessions(cluster, &of).await)
    })
    .await
}

/// Reads the forward, which existed a moment ago.
async fn read_forward(cluster: &Cluster, key: &ObjectKey) -> Result<PortForward, Error> {
    let gone = || Error::NoForward { namespace: key.namespace.clone(), name: key.name.clone(), nearest: None };
    cluster.get::<PortForward>(&key.namespace, &key.name).await?.ok_or_else(gone)
}

/// Reads the number of sessions, without a list.
async fn sessions(cluster: &Cluster, of: &Of) -> Fetched<SessionList> {
    live::read(cluster, &api::Request::sessions(of, 0)).await
}

async fn suspend(cluster: &Cluster, key: &ObjectKey) -> Result<(), Error> {
    let forwards = Api::<PortForward>::namespaced(cluster.client(), &key.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    let asked = Asked::new("patch", "portforwards.portlane.dev", Place::Namespace(key.namespace.clone()));
    cluster.answer(asked, forwards.patch(&key.name, &params, &patch)).await?;
    Ok(())
}

/// Evicts a pod if it still has this uid. Returns the message of a refusal that may be temporary: that of a
/// `PodDisruptionBudget`.
async fn evict(cluster: &Cluster, pod: &ObjectKey, uid: Option<&str>) -> Result<Option<String>, Error> {
    let ObjectKey { namespace, name } = pod;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    let request = Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"))
        .header(CONTENT_TYPE, "application/json")
        .body(eviction.to_string().into_bytes());
    let evicted = async {
        match cluster.client().request::<Value>(request.map_err(kube::Error::HttpError)?).await {
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(Some(status.message)),
            answer => answer.map(|_| None),
        }
    };
    let asked = Asked::new("create", "pods/eviction", Place::Namespace(namespace.clone()));
    Ok(cluster.answer(asked, evicted).await?)
}

/// Prints the progress whenever it changes, until the drain is complete.
async fn follow(of: &Of, args: &args::Drain, look: impl AsyncFn() -> Progress) -> Result<(), Error> {
    let started = Instant::now();
    let mut last: Option<Progress> = None;
    loop {
        let now = look().await;
        if last.as_ref() != Some(&now) {
            print(of, args, &now)?;
        }
        if now.state == State::Done {
            return Ok(());
        }
        if started.elapsed() >= args.timeout() {
            return late(of, args, now);
        }
        last = Some(now);
        sleep(REFRESH).await;
    }
}

/// Prints the progress of a drain: for people a line, for programs a record. A closed output does not end the drain.
fn print(of: &Of, args: &args::Drain, progress: &Progress) -> Result<(), Error> {
    let record = || Record::new(of, progress.clone());
    write(&match args.output {
        Format::Text => format!("{}\n", printable(&format!("{}: {}", object(of), progress.detail))),
        Format::Json => json_line(&record())?,
        Format::Yaml => yaml_document(&record())?,
    })?;
    Ok(())
}

/// Ends a drain whose time is over. The error tells people, and a record tells programs.
fn late(of: &Of, args: &args::Drain, left: Progress) -> Result<(), Error> {
    let left = left.too_late();
    if args.output != Format::Text {
        print(of, args, &left)?;
    }
    Err(Error::Late { what: object(of), left: left.detail, seconds: args.timeout })
}

/// Asks the user, unless the arguments have the answer.
fn confirm(plan: &str, yes: bool) -> Result<(), Error> {
    if yes {
        note(plan);
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Unasked { plan: plan.to_owned() });
    }
    write!(io::stderr(), "{} Continue? [y/N] ", printable(plan)).and_then(|()| io::stderr().flush())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::Declined) }
}
