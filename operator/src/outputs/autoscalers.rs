//! Making autoscalers, and taking them away.

use crds::TargetKind;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use operator_core::{
    NoScaler,
    desired::{autoscaler::Scaler, holder::holder},
    names::NAME,
};

/// Reason of an autoscaler that the API server does not take, or could not be asked for.
pub const FAILED: &str = "ScalerFailed";

/// Makes one, unless somebody else holds the replicas of its target: then an older one of ours goes.
///
/// # Errors
/// Why there is none.
pub async fn apply(client: &Client, scaler: &Scaler) -> Result<(), NoScaler> {
    match free(client, scaler).await {
        Ok(()) => {}
        Err(why) => {
            if why.reason != FAILED {
                remove(client, &scaler.key, &scaler.owner).await?;
            }
            return Err(why);
        }
    }
    let parameters = PatchParams::apply(NAME).force();
    let applied = api(client, scaler).patch(&scaler.key.name, &parameters, &Patch::Apply(&scaler.manifest)).await;
    applied.map(drop).map_err(|error| failed(&scaler.key.name, &error))
}

/// Takes one away, if it belongs to this owner.
///
/// # Errors
/// The API server says no, or nothing.
pub async fn remove(client: &Client, key: &operator_core::ObjectKey, owner: &str) -> Result<(), NoScaler> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), &key.namespace);
    let there = api.get_opt(&key.name).await.map_err(|error| failed(&key.name, &error))?;
    let Some(there) = there.filter(|there| there.owner_references().iter().any(|it| it.uid == owner)) else {
        return Ok(());
    };
    let only = Preconditions { uid: there.metadata.uid, resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
    match api.delete(&key.name, &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(|error| failed(&key.name, &error)),
    }
}

fn api(client: &Client, scaler: &Scaler) -> Api<HorizontalPodAutoscaler> {
    Api::namespaced(client.clone(), &scaler.key.namespace)
}

/// Whether the target is there and nobody else scales it, nor has an object of that name.
async fn free(client: &Client, scaler: &Scaler) -> Result<(), NoScaler> {
    let no = |reason, message: String| Err(NoScaler { reason, message });
    let (kind, name) = (scaler.target_kind.as_str(), &scaler.target);
    let Some((metadata, replicas)) = target(client, scaler).await.map_err(|error| failed(name, &error))? else {
        return no(
            "TargetNotFound",
            format!("there is no {kind} {name} in this namespace: make it, or mend autoscaling.targetRef"),
        );
    };
    if let Some(holder) = holder(&metadata, replicas) {
        let message = format!(
            "spec.replicas of {kind} {name} is held by '{holder}', which would undo what an autoscaler does: take replicas out of \
             its manifest"
        );
        return no("ReplicasHeld", message);
    }
    let others = api(client, scaler).list(&ListParams::default()).await.map_err(|error| failed(name, &error))?;
    for other in others {
        let is_ours = other.owner_references().iter().any(|owner| owner.uid == scaler.owner);
        if is_ours {
            continue;
        }
        if other.name_any() == scaler.key.name {
            let message = format!(
                "HorizontalPodAutoscaler {} exists and belongs to somebody else: delete or rename it",
                scaler.key.name
            );
            return no("NameTaken", message);
        }
        let aim = other.spec.as_ref().map(|spec| &spec.scale_target_ref);
        if aim.is_some_and(|aim| aim.kind == kind && aim.name == *name) {
            let message = format!(
                "HorizontalPodAutoscaler {} scales {kind} {name} already, and two would fight: delete it, or take \
                 spec.autoscaling out",
                other.name_any()
            );
            return no("TargetTaken", message);
        }
    }
    Ok(())
}

/// The target with the replicas that it should have.
async fn target(client: &Client, scaler: &Scaler) -> Result<Option<(ObjectMeta, Option<i32>)>, kube::Error> {
    let (namespace, name) = (&scaler.key.namespace, scaler.target.as_str());
    Ok(match scaler.target_kind {
        TargetKind::Deployment => {
            let found = Api::<Deployment>::namespaced(client.clone(), namespace).get_opt(name).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
        TargetKind::StatefulSet => {
            let found = Api::<StatefulSet>::namespaced(client.clone(), namespace).get_opt(name).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
        TargetKind::ReplicaSet => {
            let found = Api::<ReplicaSet>::namespaced(client.clone(), namespace).get_opt(name).await?;
            found.map(|it| (it.metadata, it.spec.and_then(|spec| spec.replicas)))
        }
    })
}

fn failed(name: &str, error: &kube::Error) -> NoScaler {
    let said = match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    NoScaler { reason: FAILED, message: format!("the HorizontalPodAutoscaler of {name} cannot be made: {said}") }
}
