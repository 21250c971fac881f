//! The join strings of one server: a file with mode 0600 for each agent.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tunnel_core::{
    identity::AgentName,
    join::{JoinString, LONGEST},
};

use super::files::{self, FileError};

/// A folder of join strings. They are secrets while their tokens are valid.
#[derive(Debug)]
pub struct JoinFolder(PathBuf);

impl JoinFolder {
    /// Creates the folder, or checks that nobody else may write into an existing one.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        files::folder(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The path of an agent's join string, `NAMESPACE.NAME`. Neither part contains a dot.
    pub fn path(&self, agent: &AgentName) -> PathBuf {
        self.0.join(format!("{}.{}", agent.namespace(), agent.name()))
    }

    /// The join string of an agent. Absent if there is no readable one.
    pub fn read(&self, agent: &AgentName) -> Result<Option<JoinString>, FileError> {
        let bytes = files::read(&self.path(agent), LONGEST as u64 + 1)?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| JoinString::parse(&text).ok()))
    }

    /// Stores a join string, replacing an earlier one of its agent.
    pub fn write(&self, join: &JoinString) -> Result<(), FileError> {
        // The folder may have been removed; it only mirrors the tokens.
        files::folder(&self.0)?;
        files::write(&self.path(join.agent()), format!("{}\n", join.encode()).as_bytes())
    }

    /// Removes the join string of an agent, if it exists.
    pub fn remove(&self, agent: &AgentName) -> Result<(), FileError> {
        let path = self.path(agent);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(FileError::Io { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}
