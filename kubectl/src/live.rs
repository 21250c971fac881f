//! Requests to the live API.

use std::{pin::pin, slice::from_ref, time::Duration};

use crds::PortForward;
use futures_util::{StreamExt, stream};
use kube::api::ListParams;
use kubectl_core::{
    access::{Fetched, Listed, Place, Unknown},
    config::ProxyConfig,
    live::{MAX_LIMIT, Next, Of, Reading, Request, SessionId, SessionList, next, usable},
    placement::key,
};
use operator_core::ObjectKey;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    cluster::Cluster,
    describe::{find, has_kinds},
    error::Error,
    missing::has_namespace,
};

/// Interval between two reads of live sessions.
pub(crate) const REFRESH: Duration = Duration::from_secs(2);
/// The most forwards whose sessions are read at a time.
const FORWARDS: usize = 100;
/// Concurrent requests: the operator works on four, and other users have requests too.
const READ: usize = 2;
/// The pause before a request is repeated that the operator refused as too busy.
const PAUSE: Duration = Duration::from_millis(300);

/// Resolves an argument: `pod/NAME`, or the name of an existing forward.
pub(crate) async fn named(cluster: &Cluster, name: &str) -> Result<Of, Error> {
    if let Some(pod) = name.strip_prefix("pod/") {
        return Ok(Of::Pod(ObjectKey::new(cluster.namespace.clone(), pod)));
    }
    Ok(Of::Forward(key(&find(cluster, name).await?)))
}

/// Lists the forwards of a namespace or of the cluster, at most as many as those whose sessions are read.
pub(crate) async fn forwards(cluster: &Cluster, everywhere: bool) -> Result<Listed<PortForward>, Error> {
    let mut listed = all_forwards(cluster, everywhere).await?;
    listed.is_cut |= listed.items.len() > FORWARDS;
    listed.items.truncate(FORWARDS);
    Ok(listed)
}

/// Lists all forwards of a namespace or of the cluster.
pub(crate) async fn all_forwards(cluster: &Cluster, everywhere: bool) -> Result<Listed<PortForward>, Error> {
    let place = if everywhere { Place::Everywhere } else { Place::Namespace(cluster.namespace.clone()) };
    let listed = cluster.list::<PortForward>(&place, ListParams::default()).await?;
    if listed.items.is_empty() {
        has_kinds(cluster).await?;
        if !everywhere {
            has_namespace(cluster).await?;
        }
    }
    Ok(listed)
}

/// Reads the sessions of an object, or only the one with this id. Fails if the API cannot be used at all.
pub(crate) async fn sessions(cluster: &Cluster, of: Of, only: Option<SessionId>) -> Result<Vec<Reading>, Unknown> {
    let reading = each(cluster, vec![of], only).await;
    usable(&reading)?;
    Ok(reading)
}

/// Reads the sessions of these forwards, or only the one with this id: by one request if the operator and the rights of
/// the user permit that, otherwise by one for each namespace or for each forward.
pub(crate) async fn together(
    cluster: &Cluster,
    place: &Place,
    forwards: Vec<ObjectKey>,
    only: Option<SessionId>,
) -> Vec<Reading> {
    let (mut readings, mut left) = (Vec::new(), vec![(place.clone(), forwards)]);
    while let Some((place, forwards)) = left.pop() {
        let answered = if forwards.len() > 1 {
            let list = read::<SessionList>(cluster, &selecting(Request::all(&place, MAX_LIMIT), only)).await;
            next(&place, forwards, list)
        } else {
            Next::Each(forwards)
        };
        match answered {
            Next::Read(read) => readings.extend(read),
            Next::Namespaces(namespaces) => left.extend(namespaces),
            Next::Each(forwards) => {
                let targets = forwards.into_iter().map(Of::Forward).collect();
                readings.extend(Box::pin(each(cluster, targets, only)).await);
            }
        }
        if usable(&readings).is_err() {
            break;
        }
    }
    readings
}

/// Reads the numbers of sessions of these objects, without a list: as many as possible in the time of one request,
/// because each proxy that does not answer delays the answer about each of its forwards. Where the API cannot be used
/// at all, only the first object is queried.
pub(crate) async fn totals(cluster: &Cluster, targets: Vec<Of>) -> Vec<Reading> {
    let end = Instant::now() + cluster.deadline();
    let ask = |of: Of| async move {
        let list = read::<SessionList>(cluster, &Request::sessions(&of, 0)).await;
        (of, list)
    };
    let mut asking = pin!(stream::iter(targets).map(ask).buffered(READ));
    let mut readings = Vec::new();
    while let Ok(Some(reading)) = timeout_at(end, asking.next()).await {
        let is_usable = usable(from_ref(&reading)).is_ok();
        readings.push(reading);
        if !is_usable {
            break;
        }
    }
    readings
}

/// Reads the sessions of these objects, each by a request of its own. Where the API cannot be used at all, only the
/// first object is queried.
async fn each(cluster: &Cluster, mut targets: Vec<Of>, only: Option<SessionId>) -> Vec<Reading> {
    let ask = |of: Of| async move {
        let request = selecting(Request::sessions(&of, MAX_LIMIT), only);
        let list = read::<SessionList>(cluster, &request).await;
        (of, list)
    };
    let rest = targets.split_off(targets.len().min(1));
    let mut reading: Vec<Reading> = stream::iter(targets).map(ask).buffered(READ).collect().await;
    if usable(&reading).is_ok() {
        reading.extend(stream::iter(rest).map(ask).buffered(READ).collect::<Vec<_>>().await);
    }
    reading
}

/// Restricts a request to one session, if one is given.
fn selecting(request: Request, only: Option<SessionId>) -> Request {
    match only {
        Some(session) => request.only(session),
        None => request,
    }
}

/// Reads the configurations of the proxies of these pods.
pub(crate) async fn configs(cluster: &Cluster, pods: Vec<ObjectKey>) -> Vec<(ObjectKey, Fetched<ProxyConfig>)> {
    let ask = |pod: ObjectKey| async move {
        let config = read::<ProxyConfig>(cluster, &Request::config(&pod)).await;
        (pod, config)
    };
    stream::iter(pods).map(ask).buffered(READ).collect().await
}

/// Reads the response to a request. The operator works on few requests at a time, and refuses others for a moment.
pub(crate) async fn read<T: DeserializeOwned>(cluster: &Cluster, request: &Request) -> Fetched<T> {
    let response = async {
        loop {
            let attempt = http::Request::get(&request.path).body(Vec::new()).map_err(kube::Error::HttpError)?;
            match cluster.client().request_text(attempt).await {
                Err(kube::Error::Api(status)) if status.code == 429 => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    };
    match timeout(cluster.deadline(), response).await {
        Ok(Ok(text)) => serde_json::from_str(&text).map_err(|error| request.failed(&error.to_string())),
        Ok(Err(kube::Error::Api(status))) => Err(request.refused(status.code, &status.reason, &status.message)),
        Ok(Err(error)) => Err(request.failed(&error.to_string())),
        Err(_) => Err(request.failed(&format!("no answer within {} s", cluster.deadline().as_secs()))),
    }
}
