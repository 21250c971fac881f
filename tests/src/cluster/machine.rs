//! Namespaces set up as a machine: private folders, and a network without a way out.

use std::{fs, path::Path};

use super::{ClusterError, Folder, addresses::Addresses, command::run, configuration};

/// Folder of the private file systems of a node.
const PRIVATE: &str = "/run/portlane";

/// Makes /run, /etc, /var and the folder's data private, and gives the folder by its new path. Files written there
/// vanish with the mount namespace.
pub(super) fn private_folders(folder: &Folder, addresses: &Addresses) -> Result<Folder, ClusterError> {
    let root = folder.root().display().to_string();
    let here = format!("{PRIVATE}/folder");
    // Kept open, because the mounts below may hide its path.
    let held = fs::File::open(folder.root()).map_err(ClusterError::io(format!("cannot open {root}")))?;
    let held_path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
    run("mount", &["--make-rprivate", "/"])?;
    run("mount", &["-t", "tmpfs", "-o", "size=4g,mode=755", "tmpfs", "/run"])?;
    create(&here)?;
    run("mount", &["--no-canonicalize", "--bind", &held_path, &here])?;
    let inside = Folder::at(here);
    run("mount", &["-t", "tmpfs", "-o", "size=4g,mode=755", "tmpfs", &inside.data().display().to_string()])?;
    for name in ["etc", "var"] {
        let (upper, work) = (format!("{PRIVATE}/{name}/upper"), format!("{PRIVATE}/{name}/work"));
        create(&upper)?;
        create(&work)?;
        let options = format!("lowerdir=/{name},upperdir={upper},workdir={work}");
        run("mount", &["-t", "overlay", "-o", &options, "overlay", &format!("/{name}")])?;
    }
    let names = Path::new("/etc/resolv.conf");
    let _ = fs::remove_file(names);
    fs::write(names, configuration::resolv_conf(addresses))
        .map_err(ClusterError::io("cannot write /etc/resolv.conf"))?;
    Ok(inside)
}

fn create(path: &str) -> Result<(), ClusterError> {
    fs::create_dir_all(path).map_err(ClusterError::io(format!("cannot create {path}")))
}

/// Loopback, a bridge with the node's address, and a default route to nowhere, without which addresses of Services are
/// not routed at all. Address and route for each family.
pub(super) fn network(addresses: &Addresses) -> Result<(), ClusterError> {
    for (name, value) in addresses.families().flat_map(|family| family.sysctls) {
        let file = Path::new("/proc/sys/net").join(name);
        fs::write(&file, value).map_err(ClusterError::io(format!("cannot write {}", file.display())))?;
    }
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["link", "add", "node0", "type", "bridge"])?;
    for Addresses { node, node_prefix, .. } in addresses.families() {
        run("ip", &["address", "add", &format!("{node}/{node_prefix}"), "dev", "node0"])?;
    }
    run("ip", &["link", "set", "node0", "up"])?;
    for Addresses { router, .. } in addresses.families() {
        run("ip", &["route", "add", "default", "via", &router.to_string(), "dev", "node0"])?;
    }
    Ok(())
}
