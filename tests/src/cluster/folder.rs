//! The folder of one cluster, and the sweep of folders whose keeper is gone.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::ClusterError;

/// Folders of ended clusters that are kept for their logs.
const KEPT: usize = 30;

/// The files of a cluster.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder of all clusters.
    pub fn all() -> PathBuf {
        images::target().join("clusters")
    }

    /// An existing folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Creates a folder with its parts and locks it: while the returned file is open, no sweep removes the folder.
    pub(super) fn create(root: impl Into<PathBuf>) -> Result<(Self, File), ClusterError> {
        let folder = Self::at(root);
        let create = |part: &Path| {
            fs::create_dir_all(part).map_err(ClusterError::io(format!("cannot create {}", part.display())))
        };
        create(&folder.root)?;
        let path = folder.lock();
        let lock = File::create(&path).map_err(ClusterError::io(format!("cannot create {}", path.display())))?;
        // A sweep holds the lock only for a moment.
        lock.lock().map_err(ClusterError::io(format!("cannot lock {}", path.display())))?;
        for part in [folder.logs(), folder.pki(), folder.configuration(), folder.data()] {
            create(&part)?;
        }
        Ok((folder, lock))
    }

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One log for each component.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Files that components read.
    pub fn configuration(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// Data that is removed when the cluster ends.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The kubeconfig of an administrator, for use outside.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Removes the data of clusters whose keeper is gone, and the oldest folders.
    pub fn sweep() {
        let mut ended: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(Self::all()).into_iter().flatten().flatten() {
            let folder = Self::at(entry.path());
            // Locked until its data is gone: a keeper that creates the same folder waits.
            let Ok(lock) = File::open(folder.lock()) else { continue };
            if lock.try_lock().is_ok() {
                let _ = fs::remove_dir_all(folder.data());
                let changed = entry.metadata().and_then(|metadata| metadata.modified());
                ended.push((changed.unwrap_or(SystemTime::UNIX_EPOCH), folder.root));
            }
        }
        ended.sort();
        for (_, folder) in ended.iter().rev().skip(KEPT) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The checkout.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}
