//! The tokens of one server, stored in its folder beside the root.

use std::path::{Path, PathBuf};

use tunnel_core::{
    enrolment::{IssueError, Ledger, Refusal},
    hello::Denied,
    identity::{AgentIdentity, AgentName, Fingerprint},
};

use super::files::{self, FileError};

#[cfg(test)]
mod tests;

/// Name of the file.
const FILE: &str = "tokens.json";
/// The largest size of the file in bytes. A full ledger, in which every token has enrolled as many agents as it may,
/// has 7.4 MB.
const MOST: u64 = 8 << 20;

/// Why the tokens cannot be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file or its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold a ledger.
    #[error(
        "{} does not hold the tokens of this server: restore the file, or remove it and issue new join strings to agents \
         that have not enrolled",
        .path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The error.
        source: serde_json::Error,
    },
    /// The tokens cannot be written as JSON.
    #[error("cannot write the tokens of this server")]
    Encode(#[source] serde_json::Error),
    /// A token was not issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Why a token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The ledger refused.
    #[error(transparent)]
    Refused(Refusal),
    /// The policy of the agent denies it.
    #[error(transparent)]
    Denied(Denied),
    /// The redemption cannot be stored.
    #[error(transparent)]
    Kept(#[from] LedgerError),
}

/// The ledger of one server. A change counts only once it is on disk.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    ledger: Ledger,
}

impl LedgerFile {
    /// Loads the tokens of a folder, or begins with none. One process at a time uses the folder.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        files::folder(folder)?;
        let path = folder.join(FILE);
        let ledger = match files::read(&path, MOST)? {
            None => Ledger::default(),
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(ledger) => ledger,
                Err(source) => return Err(LedgerError::Content { path, source }),
            },
        };
        Ok(Self { path, ledger })
    }

    /// Sets the root that signs now, like [`Ledger::set_root`]. It is written with the next change.
    pub fn set_root(&mut self, root: Fingerprint) -> bool {
        self.ledger.set_root(root)
    }

    /// The tokens.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Issues a token, like [`Ledger::issue`].
    pub fn issue(
        &mut self,
        identity: AgentIdentity,
        token: Fingerprint,
        redemptions: u32,
        expires: u64,
        now: u64,
    ) -> Result<(), LedgerError> {
        let mut next = self.ledger.clone();
        next.issue(identity, token, redemptions, expires, now)?;
        self.replace(next)
    }

    /// Redeems a token, like [`Ledger::redeem`], and returns the identity that it gives. `permit` decides last; a token
    /// that it denies is not used up.
    pub fn redeem(
        &mut self,
        token: &Fingerprint,
        agent: &AgentName,
        key: &Fingerprint,
        now: u64,
        permit: impl FnOnce(&AgentIdentity) -> Result<(), Denied>,
    ) -> Result<AgentIdentity, RedeemError> {
        let mut next = self.ledger.clone();
        let grant = next.redeem(token, agent, key, now).map_err(RedeemError::Refused)?;
        permit(&grant.identity).map_err(RedeemError::Denied)?;
        if !grant.again {
            self.replace(next)?;
        }
        Ok(grant.identity)
    }

    fn replace(&mut self, next: Ledger) -> Result<(), LedgerError> {
        let text = serde_json::to_vec(&next).map_err(LedgerError::Encode)?;
        files::write(&self.path, &text)?;
        self.ledger = next;
        Ok(())
    }
}
