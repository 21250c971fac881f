//! The lock of an agent's folder, which one process uses at a time.

use std::fs::{File, TryLockError};

use super::{AgentError, AgentFolder, files};

/// The file that is locked. It stays, as its removal would let two processes lock two files.
const LOCK: &str = "LOCK";

/// The right to use a folder, until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct Lock(File);

impl AgentFolder {
    /// Takes the right to use the folder.
    pub fn lock(&self) -> Result<Lock, AgentError> {
        let (file, path) = files::open_to_lock(&self.0, LOCK)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(AgentError::InUse(self.0.clone())),
            Err(TryLockError::Error(error)) => Err(files::not_locked(&path, error).into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread starts at this moment has a copy of the descriptor
        // until it runs its program, and a lock lasts as long as its last copy.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn one_process_has_a_folder_and_another_one_is_told_what_to_do() {
        let temporary = tempfile::tempdir().expect("a folder");
        let path = temporary.path().join("agent");
        let folder = AgentFolder::open(&path).expect("made");
        let lock = folder.lock().expect("nobody has it");
        let mode = fs::metadata(path.join(LOCK)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let told = AgentFolder::open(&path).expect("opened").lock().expect_err("another has it").to_string();
        assert!(told.contains("agent: stop it, or give this one a folder of its own with --data"), "{told}");
        let _copy = lock.0.try_clone().expect("a descriptor");
        drop(lock);
        folder.lock().expect("it is free");
    }
}
