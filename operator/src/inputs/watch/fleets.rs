//! Watches fleets, the claims of their pods, and the Jobs that drain claims: only objects of this operator.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::PersistentVolumeClaim,
};
use kube::{api::PartialObjectMeta, runtime::watcher::watcher};

use super::{Task, config};
use operator_core::world::{read, watched::Kind};

/// Watches the kind of a task.
pub(super) async fn run(task: &Task) {
    let ours = config().labels(&task.managed());
    match task.source.kind {
        Kind::StatefulSets => {
            let api = task.api::<StatefulSet>();
            task.follow(|| watcher(api.clone(), ours.clone()), |it| read::stateful_set(&it)).await;
        }
        Kind::Claims => {
            let api = task.api::<PartialObjectMeta<PersistentVolumeClaim>>();
            task.follow(|| watcher(api.clone(), ours.clone()), |it| read::claim(&it)).await;
        }
        Kind::Drainers => {
            let api = task.api::<Job>();
            task.follow(|| watcher(api.clone(), ours.clone()), |it| read::drainer(&it)).await;
        }
        _ => {
            let api = task.api::<Deployment>();
            task.follow(|| watcher(api.clone(), ours.clone()), |it| read::deployment(&it)).await;
        }
    }
}
