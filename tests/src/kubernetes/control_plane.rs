//! etcd and an API server.

use std::ops::Deref;

use super::{
    cluster::Cluster,
    held::{Held, folder},
};
use crate::{
    cluster::{Ask, Folder, Order},
    programs::{self, KubernetesVersion},
};

/// An API server on loopback with a store of its own. It takes objects and runs nothing.
#[derive(Debug)]
pub struct ControlPlane {
    cluster: Cluster,
}

impl ControlPlane {
    /// Starts one, or takes the cluster of `PORTLANE_TEST_KUBECONFIG`.
    ///
    /// # Panics
    /// It did not start; the message says why and what to do.
    pub fn start(version: KubernetesVersion) -> Self {
        Cluster::existing().map_or_else(|| Self::start_own(version, false), |cluster| Self { cluster })
    }

    /// One whose Deployments, autoscalers and garbage collection work; Pods stay Pending.
    ///
    /// # Panics
    /// It did not start; the message says why and what to do.
    pub fn start_with_controller_manager(version: KubernetesVersion) -> Self {
        Cluster::existing().map_or_else(|| Self::start_own(version, true), |cluster| Self { cluster })
    }

    /// Starts one, whatever the environment says.
    ///
    /// # Panics
    /// It did not start; the message says why and what to do.
    pub fn start_own(version: KubernetesVersion, controller_manager: bool) -> Self {
        let folder = folder(&format!("api-{}", version.minor()));
        let newest = version == KubernetesVersion::Newest;
        let (held, _) = Held::start(&Ask::ControlPlane { folder: folder.clone(), newest, controller_manager });
        Self { cluster: Cluster::own(held, Folder::at(folder), programs::find(version, "kubectl")) }
    }

    /// Remembers the store as it is now. The API server is away for a moment.
    ///
    /// # Panics
    /// It does not come back, or was there before the tests.
    pub fn save(&self) {
        self.cluster.own.as_ref().expect("a server of our own").held.order(Order::Save);
    }

    /// Sets the store back to what was saved, as from a backup.
    ///
    /// # Panics
    /// As [`Self::save`].
    pub fn restore(&self) {
        self.cluster.own.as_ref().expect("a server of our own").held.order(Order::Restore);
    }
}

impl Deref for ControlPlane {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
