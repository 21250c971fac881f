//! Reads the sidecar of a pod.

use k8s_openapi::api::core::v1::Pod;

use crate::names::{CONTAINER, SIDECAR_IMAGE};

/// The image of the sidecar, if injection and not an annotation of the pod chose it.
pub(super) fn image(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.init_containers.iter().flatten();
    let image = containers.find(|container| container.name == CONTAINER)?.image.as_ref()?;
    let chosen = pod.metadata.annotations.as_ref().and_then(|all| all.get(SIDECAR_IMAGE));
    (chosen != Some(image)).then(|| image.clone())
}
