//! Watch of the Gateway API's `ReferenceGrant`s, in clusters that serve the kind.

use kube::{
    Api,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::watcher,
};
use tokio::time::sleep;

use super::{Ended, Progress, Task, config};
use operator_core::{
    schedule::{
        access::Failure,
        discovery::{Discovery, Next, Served},
    },
    world::read,
};

use crate::platform::metrics::count;

/// API group of the kind.
const GROUP: &str = "gateway.networking.k8s.io";
/// The kind.
const KIND: &str = "ReferenceGrant";
/// Versions of the group that may have the kind, in the order of preference.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Watches grants while the cluster serves the kind. Without the kind the driver gets an empty list.
pub(super) async fn run(task: &Task) {
    let (mut discovery, mut progress) = (Discovery::default(), Progress::new(task));
    loop {
        let (answers, error) = ask(task).await;
        let pause = match discovery.answered(&answers) {
            Next::Watch(version) => {
                if watch(task, &mut progress, version).await == Ended::Driver {
                    return;
                }
                discovery.lost(progress.take_listed())
            }
            Next::Absent { is_news, again } => {
                if is_news && !task.send_empty_list().await {
                    return;
                }
                again
            }
            Next::Unclear { is_news, again } => {
                if is_news {
                    let error = error.unwrap_or_default();
                    tracing::warn!(
                        kind = KIND,
                        error,
                        "cannot discover whether the API server serves ReferenceGrants, will retry"
                    );
                }
                again
            }
        };
        task.heartbeat.idle(sleep(pause)).await;
    }
}

/// Watches grants in one version, until the API server no longer serves the version, or the driver is gone.
async fn watch(task: &Task, progress: &mut Progress, version: &str) -> Ended {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, KIND));
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

/// Asks the API server which version serves the kind. Returns the answers, and the last error.
async fn ask(task: &Task) -> (Vec<(&'static str, Served)>, Option<String>) {
    let (mut answers, mut failed) = (Vec::new(), None);
    for version in VERSIONS {
        let served = match task.client.list_api_group_resources(&format!("{GROUP}/{version}")).await {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == KIND) => Served::Yes,
            Ok(_) => Served::No,
            Err(error) if is_absence(&error) => Served::No,
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
