//! Watches of gateways' children that only show when somebody changes or deletes a child: metadata alone, and only what
//! this operator made.

use std::fmt::Debug;

use kube::{
    Resource,
    api::PartialObjectMeta,
    core::NamespaceResourceScope,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;

use super::{PAGE, Task};
use operator_core::{
    names,
    world::{child::ChildKind, read},
};

/// Watches the children of one kind.
pub(super) async fn run<K>(task: &Task, kind: ChildKind)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let label = format!("app.kubernetes.io/managed-by={}", names::NAME);
    let ours = watcher::Config::default().page_size(PAGE).labels(&label);
    task.pump(watcher(task.api::<PartialObjectMeta<K>>(), ours), |it| read::child(kind, &it.metadata)).await;
}
