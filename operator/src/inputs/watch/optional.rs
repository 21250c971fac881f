//! Watches kinds that a cluster may lack: the Gateway API's `ReferenceGrant`, and `ForwardAgent`, which the CRDs of
//! earlier releases do not have.

use crds::ForwardAgent;
use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::watcher,
};

use super::{Ended, Progress, Retrying, Task, config};
use operator_core::{
    schedule::{
        access::Failure,
        discovery::{Discovery, Next, Served},
    },
    world::{guarded::Guarded, read, watched::Kind},
};

use crate::platform::{deadline::RequestError, metrics::count};

/// The names of a kind in discovery.
struct Described {
    /// API group of the kind.
    group: &'static str,
    /// Versions of the group that may have the kind, in the order of preference.
    versions: &'static [&'static str],
}

const AGENTS: Described = Described { group: crds::GROUP, versions: &[crds::VERSION] };
const GRANTS: Described = Described { group: "gateway.networking.k8s.io", versions: &["v1", "v1beta1"] };

/// Watches the kind of a task while the cluster serves it. Without the kind the driver gets an empty list.
pub(super) async fn run(task: &Task) {
    let kind = task.source.kind;
    let described = if kind == Kind::Agents { AGENTS } else { GRANTS };
    let (mut discovery, mut progress) = (Discovery::default(), Progress::new(task));
    let mut retrying = Retrying::new(task.returns.clone());
    loop {
        let (answers, error) = Box::pin(ask(task, &described)).await;
        let pause = match discovery.answered(&answers) {
            Next::Watch(version) => {
                if watch(task, &mut progress, version).await == Ended::Driver {
                    return;
                }
                discovery.lost(progress.take_listed())
            }
            Next::Absent { is_news, again } => {
                if is_news && kind == Kind::Agents {
                    tracing::warn!(
                        kind = kind.name(),
                        "the API server does not serve this kind, so no agent can connect: install the CRDs of the \
                         operator's release (chart portlane-crds)"
                    );
                }
                if is_news && !task.send_empty_list().await {
                    return;
                }
                again
            }
            Next::Unclear { is_news, again } => {
                if is_news {
                    let error = error.unwrap_or_default();
                    tracing::warn!(
                        kind = kind.name(),
                        error,
                        "cannot discover whether the API server serves this kind, will retry"
                    );
                }
                again
            }
        };
        task.heartbeat.idle(retrying.rest(pause)).await;
    }
}

/// Watches a kind in one version, until the API server no longer serves the version, or the driver is gone.
async fn watch(task: &Task, progress: &mut Progress, version: &str) -> Ended {
    if task.source.kind == Kind::Agents { agents(task, progress).await } else { grants(task, progress, version).await }
}

async fn agents(task: &Task, progress: &mut Progress) -> Ended {
    let api = task.api::<Guarded<ForwardAgent>>();
    loop {
        let ended = task.pump(progress, watcher(api.clone(), config()), &read::agent).await;
        if ended != Ended::Again {
            return ended;
        }
    }
}

async fn grants(task: &Task, progress: &mut Progress, version: &str) -> Ended {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GRANTS.group, version, Kind::Grants.name()));
    let api = match &task.source.namespace {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(task.client.clone(), namespace, &resource),
        None => Api::all_with(task.client.clone(), &resource),
    };
    loop {
        let ended =
            task.pump(progress, watcher(api.clone(), config()), &|object: DynamicObject| read::grants(&object)).await;
        if ended != Ended::Again {
            return ended;
        }
    }
}

/// Queries the API server for the versions that serve the kind. Returns the answers, and the last error.
async fn ask(task: &Task, described: &Described) -> (Vec<(&'static str, Served)>, Option<String>) {
    let (mut answers, mut failed) = (Vec::new(), None);
    let kind = task.source.kind.name();
    for &version in described.versions {
        let path = format!("{}/{version}", described.group);
        let served = match task.heartbeat.answer(task.client.list_api_group_resources(&path)).await {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == kind) => Served::Yes,
            Ok(_) => Served::No,
            Err(RequestError::Refused(error)) if is_absence(&error) => Served::No,
            Err(error) => {
                count(&task.metrics.api_errors, "request", "discovery");
                failed = Some(error.to_string());
                Served::Unclear
            }
        };
        answers.push((version, served));
        if served == Served::Yes {
            break;
        }
    }
    (answers, failed)
}

/// Whether the API server answered that it does not serve a version.
fn is_absence(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    Failure::of(status.code, &status.reason, &status.message) == Failure::NotServed
}
