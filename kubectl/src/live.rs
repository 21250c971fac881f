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

/// Time between two looks at live sessions.
pub(crate) const REFRESH: Duration = Duration::from_secs(2);
/// Most forwards whose sessions are read at a time.
const FORWARDS: usize = 100;
/// Requests at the same time: the operator works on four, and other people ask too.
const READ: usize = 2;
/// Time until a request is repeated that the operator has refused because of others.
const PAUSE: Duration = Duration::from_millis(300);

/// Whose sessions an argument names: `pod/NAME`, or a forward that exists.
pub(crate) async fn named(cluster: &Cluster, name: &str) -> Result<Of, Error> {
    if let Some(pod) = name.strip_prefix("pod/") {
        return Ok(Of::Pod(ObjectKey::new(cluster.namespace.clone(), pod)));
    }
    Ok(Of::Forward(key(&find(cluster, name).await?)))
}

/// The forwards of a place, no more than those whose sessions are read.
pub(crate) async fn forwards(cluster: &Cluster, everywhere: bool) -> Result<Listed<PortForward>, Error> {
    let mut listed = all_forwards(cluster, everywhere).await?;
    listed.is_cut |= listed.items.len() > FORWARDS;
    listed.items.truncate(FORWARDS);
    Ok(listed)
}

/// All forwards of a place.
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

/// The sessions of an object, or of them the one with this id. Fails if the API cannot be used at all.
pub(crate) async fn sessions(cluster: &Cluster, of: Of, only: Option<SessionId>) -> Result<Vec<Reading>, Unknown> {
    let reading = each(cluster, vec![of], only).await;
    usable(&reading)?;
    Ok(reading)
}

/// The sessions of these forwards of a place, or of them the one with this id: by one request if the operator and the
/// rights of the user permit, otherwise by one for each namespace or for each forward.
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

/// The numbers of sessions of these objects, without a list: as many as can be read in the time of one request, because
/// each silent proxy delays the answer about each of its forwards. Where the API cannot be used at all, only the first
/// object is asked about.
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

/// The sessions of these objects, each by a request of its own. Where the API cannot be used at all, only the first
/// object is asked about.
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

/// The request, if wanted for one session only.
fn selecting(request: Request, only: Option<SessionId>) -> Request {
    match only {
        Some(session) => request.only(session),
        None => request,
    }
}

/// The configurations of the proxies of these pods.
pub(crate) async fn configs(cluster: &Cluster, pods: Vec<ObjectKey>) -> Vec<(ObjectKey, Fetched<ProxyConfig>)> {
    let ask = |pod: ObjectKey| async move {
        let config = read::<ProxyConfig>(cluster, &Request::config(&pod)).await;
        (pod, config)
    };
    stream::iter(pods).map(ask).buffered(READ).collect().await
}

/// The response to a request. The operator works on few requests at a time, and refuses others for a moment.
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
