//! The tokens of one server, kept in its folder beside the root.

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
/// Most bytes of the file. A full ledger, with every token redeemed by as many agents as it may be, has 7.4 MB.
const MOST: u64 = 8 << 20;

/// Why the tokens cannot be used or kept.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file or its folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
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
    /// A token is not issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Why a token is not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// By the ledger.
    #[error(transparent)]
    Refused(Refusal),
    /// By what holds for the agent now.
    #[error(transparent)]
    Denied(Denied),
    /// It cannot be kept that the token was redeemed.
    #[error(transparent)]
    Kept(#[from] LedgerError),
}

/// The ledger of one server. A change counts only when it is on the disk.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    ledger: Ledger,
}

impl LedgerFile {
    /// Loads the tokens of a folder, or begins without one. One process at a time uses the folder.
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

    /// Takes the root that signs now, as [`Ledger::set_root`] has it. It is written with the next change.
    pub fn set_root(&mut self, root: Fingerprint) -> bool {
        self.ledger.set_root(root)
    }

    /// The tokens.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps a token, as [`Ledger::issue`] has it.
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

    /// Redeems a token, as [`Ledger::redeem`] has it, and tells who its owner becomes. `permit` has the last word, and
    /// a token that it denies is not used up.
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
