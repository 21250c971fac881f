//! etcd and an API server.

use std::ops::Deref;

use super::{
    cluster::Cluster,
    held::{Held, folder},
};
use crate::{
    cluster::{Folder, Order, Request},
    programs::{self, KubernetesVersion},
};

/// An API server on loopback with a store of its own, without controllers and kubelets.
#[derive(Debug)]
pub struct ControlPlane {
    cluster: Cluster,
}

impl ControlPlane {
    /// Starts a control plane, or takes the cluster of `PORTLANE_TEST_KUBECONFIG`.
    ///
    /// # Panics
    /// The control plane did not start; the message has the reason and the remedy.
    pub fn start(version: KubernetesVersion) -> Self {
        Cluster::existing().map_or_else(|| Self::start_own(version, false), |cluster| Self { cluster })
    }

    /// Starts a control plane with a controller manager: Deployments, autoscalers and garbage collection work, Pods
    /// stay Pending.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with_controller_manager(version: KubernetesVersion) -> Self {
        Cluster::existing().map_or_else(|| Self::start_own(version, true), |cluster| Self { cluster })
    }

    /// Starts a control plane even if the environment names a cluster.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_own(version: KubernetesVersion, controller_manager: bool) -> Self {
        let folder = folder(&format!("api-{}", version.minor()));
        let newest = version == KubernetesVersion::Newest;
        let (held, _) = Held::start(&Request::ControlPlane { folder: folder.clone(), newest, controller_manager });
        Self { cluster: Cluster::own(held, Folder::at(folder), programs::find(version, "kubectl")) }
    }

    /// Backs up the store. The API server is restarted.
    ///
    /// # Panics
    /// The API server does not become ready, or the cluster existed before the tests.
    pub fn save(&self) {
        self.cluster.own.as_ref().expect("a server of our own").held.order(Order::Save);
    }

    /// Restores the store from the backup. The API server is restarted.
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
