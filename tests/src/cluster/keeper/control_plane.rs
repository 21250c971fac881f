//! The keeper of a control plane on loopback: starts etcd and an API server, backs the store up and restores it.

use std::{fs, path::Path, process::Command};

use super::{Holder, Order, Report, is_ready, report};
use crate::{
    cluster::{
        ClusterError, Folder,
        children::Children,
        components::{self, ApiServer},
        configuration, pki,
    },
    programs::{self, KubernetesVersion},
    sockets::free_port,
};

/// Most starts of an API server whose port another process takes first.
const TRIES: usize = 3;

/// Runs a control plane as long as there is a holder.
pub(super) fn keep(
    root: &Path,
    version: KubernetesVersion,
    controller_manager: bool,
    holder: &Holder,
) -> Result<(), ClusterError> {
    Folder::sweep();
    let (folder, lock) = Folder::create(root)?;
    let mut tries = 0;
    let started = loop {
        tries += 1;
        let api = ApiServer::on_loopback(version, free_port());
        match start_control_plane(&folder, &api, controller_manager, holder) {
            Err(ClusterError::Ended { tail, .. }) if tries < TRIES && tail.contains("address already in use") => {
                let _ = fs::remove_dir_all(folder.data().join("etcd"));
            }
            result => break result.map(|children| (api, children)),
        }
    };
    let result = started.and_then(|(api, mut children)| {
        loop {
            report(&Report::Ready { init: None });
            let order = holder.order(&mut children)?;
            // The store is copied while no process writes to it.
            drop(children);
            follow(&folder, order)?;
            children = start_control_plane(&folder, &api, controller_manager, holder)?;
        }
    });
    let _ = fs::remove_dir_all(folder.data());
    drop(lock);
    result
}

/// Backs up the store, or restores it.
fn follow(folder: &Folder, order: Order) -> Result<(), ClusterError> {
    let (store, saved) = (folder.data().join("etcd"), folder.data().join("saved"));
    let (from, to) = match order {
        Order::Save => (store, saved),
        Order::Restore => (saved, store),
    };
    let _ = fs::remove_dir_all(&to);
    let mut command = Command::new("cp");
    let output = command.arg("-a").arg(&from).arg(&to).output().map_err(ClusterError::io("cannot run cp"))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ClusterError::Command { command: format!("cp -a {} {}", from.display(), to.display()), output })
}

fn start_control_plane(
    folder: &Folder,
    api: &ApiServer,
    controller_manager: bool,
    holder: &Holder,
) -> Result<Children, ClusterError> {
    if !folder.kubeconfig().exists() {
        pki::write(&folder.pki(), &configuration::identities(api.address.ip(), api.addresses))?;
    }
    let kubeconfig = folder.kubeconfig();
    fs::write(&kubeconfig, configuration::kubeconfig(folder, &api.url(), "admin"))
        .map_err(ClusterError::io(format!("cannot write {}", kubeconfig.display())))?;
    let kubectl = programs::find(api.version, "kubectl")?;
    let mut children = Children::of(folder);
    children.start(&components::etcd(folder, programs::find)?)?;
    children.start(&components::api_server(folder, api, programs::find)?)?;
    holder.until("readiness of the API server", &mut children, folder, || is_ready(api, &kubectl, &kubeconfig))?;
    if controller_manager {
        let own = configuration::kubeconfig(folder, &api.url(), "controller-manager");
        configuration::write(folder, "controller-manager.kubeconfig", &own)?;
        children.start(&components::controller_manager(folder, api.addresses, programs::find, 1)?)?;
    }
    Ok(children)
}
