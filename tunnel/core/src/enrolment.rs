//! The tokens that one server issued, their redemptions, and the frames of an enrolment.

use serde::{Deserialize, Serialize};

use crate::identity::{AgentIdentity, AgentName, Fingerprint};

mod frames;
#[cfg(test)]
mod tests;

pub use self::frames::{Enrol, EnrolReason, EnrolRefusal, MAX_CERTIFICATE, MAX_REMEDY, MAX_REQUEST, Outcome, Proof};

/// Most tokens that a server keeps.
pub const ENTRIES: usize = 1024;
/// Most agents that one token enrols.
pub const REDEMPTIONS: u32 = 100;
/// Longest validity of a token, in seconds.
pub const LONGEST: u64 = 604_800;
/// How long [`Ledger::prune`] keeps an expired or revoked token, in seconds, so that an agent that uses it learns why
/// it is no longer valid.
const REMEMBERED: u64 = 24 * 3600;

/// Why a token enrols nobody. The server sends this to the agent, whose owner can act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token is unknown, or was forgotten long after it expired.
    #[error("this server did not issue the token: check that the join string is of this server, or issue a new one")]
    Unknown,
    /// The token was issued for another agent.
    #[error("the token was issued for another agent than {0}: issue a join string for {0}")]
    OtherAgent(AgentName),
    /// The tokens of the agent were revoked.
    #[error("the token of agent {0} was revoked: issue a new join string")]
    Revoked(AgentName),
    /// The token has expired.
    #[error("the token of agent {0} has expired: issue a new join string, and check the clock of the server")]
    Expired(AgentName),
    /// The token has enrolled as many agents as it may.
    #[error(
        "the token of agent {0} was redeemed before, with another key: issue a new join string, and if nobody you know \
         redeemed it, revoke the agent"
    )]
    Redeemed(AgentName),
}

/// Why a token is not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The ledger is full.
    #[error(
        "{most} tokens have not expired: wait for one to expire, or revoke an agent that should not enrol",
        most = ENTRIES
    )]
    Full,
    /// The number of redemptions is out of bounds.
    #[error("a token is redeemed 1 to {most} times, not {0}", most = REDEMPTIONS)]
    Redemptions(u32),
    /// The same token was already issued.
    #[error("the token is in use: issue another one")]
    Again,
}

/// A token that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// The identity that the token grants.
    identity: AgentIdentity,
    /// The root that signs the agents that the token enrols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Fingerprint>,
    /// Fingerprint of the token. The token itself is never stored.
    token: Fingerprint,
    /// How many more agents the token enrols.
    redemptions_left: u32,
    /// When the token expires, in seconds since 1970.
    expires: u64,
    /// Fingerprints of the public keys that the token enrolled.
    keys: Vec<Fingerprint>,
    revoked: bool,
}

impl Entry {
    /// Whether the token is still valid. A token whose expiry is further away than the limit is not, as it was issued
    /// while the clock was ahead.
    fn counts(&self, now: u64) -> bool {
        self.expires > now && self.expires - now <= LONGEST
    }
}

/// The grant of a redeemed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The identity for the certificate.
    pub identity: AgentIdentity,
    /// Whether the same key redeemed the token before, in which case the ledger did not change.
    pub again: bool,
}

/// The tokens of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Fingerprint of the root that signs. Absent until a server has reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Fingerprint>,
    entries: Vec<Entry>,
}

impl Ledger {
    /// Sets the root that signs now. Agents that another root enrolled are trusted by nobody: they no longer count,
    /// unless that root is restored. Returns whether the ledger has tokens and the root has changed.
    pub fn set_root(&mut self, root: Fingerprint) -> bool {
        let before = self.root.replace(root).unwrap_or(root);
        for entry in &mut self.entries {
            entry.root.get_or_insert(before);
        }
        before != root && !self.entries.is_empty()
    }

    /// Issues a token that enrols up to `redemptions` agents as `identity`, until `expires`, seconds since 1970. If the
    /// ledger is full, an expired or revoked token is removed: one that enrolled nobody before others, and of these the
    /// one with the earliest expiry.
    pub fn issue(
        &mut self,
        identity: AgentIdentity,
        token: Fingerprint,
        redemptions: u32,
        expires: u64,
        now: u64,
    ) -> Result<(), IssueError> {
        if !(1..=REDEMPTIONS).contains(&redemptions) {
            return Err(IssueError::Redemptions(redemptions));
        }
        if self.find(&token).is_some() {
            return Err(IssueError::Again);
        }
        if self.entries.len() >= ENTRIES {
            let over = self.entries.iter().enumerate().filter(|(_, entry)| entry.revoked || !entry.counts(now));
            let oldest = over
                .min_by_key(|(_, entry)| (!entry.keys.is_empty(), entry.expires))
                .map(|(at, _)| at)
                .ok_or(IssueError::Full)?;
            self.entries.remove(oldest);
        }
        let keys = Vec::new();
        let root = self.root;
        self.entries.push(Entry {
            identity,
            root,
            token,
            redemptions_left: redemptions,
            expires,
            keys,
            revoked: false,
        });
        Ok(())
    }

    /// Redeems a token for `agent`, whose request for a certificate is signed by the key with the fingerprint `key`.
    ///
    /// An agent that lost the answer asks again with the same key and gets the same grant until the token expires. The
    /// request proves possession of the key, so a token that leaks after its redemption is worthless.
    pub fn redeem(
        &mut self,
        token: &Fingerprint,
        agent: &AgentName,
        key: &Fingerprint,
        now: u64,
    ) -> Result<Grant, Refusal> {
        let at = self.find(token).ok_or(Refusal::Unknown)?;
        let entry = self.entries.get_mut(at).ok_or(Refusal::Unknown)?;
        if entry.identity.agent() != agent {
            return Err(Refusal::OtherAgent(agent.clone()));
        }
        if entry.revoked {
            return Err(Refusal::Revoked(agent.clone()));
        }
        if !entry.counts(now) {
            return Err(Refusal::Expired(agent.clone()));
        }
        let again = entry.keys.contains(key);
        if !again {
            entry.redemptions_left =
                entry.redemptions_left.checked_sub(1).ok_or_else(|| Refusal::Redeemed(agent.clone()))?;
            entry.keys.push(*key);
        }
        Ok(Grant { identity: entry.identity.clone(), again })
    }

    /// Revokes every token issued for an agent so far. Returns how many could still be redeemed.
    pub fn revoke(&mut self, agent: &AgentName, now: u64) -> usize {
        let mut live = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.identity.agent() == agent) {
            live += usize::from(!entry.revoked && entry.counts(now) && entry.redemptions_left > 0);
            entry.revoked = true;
        }
        live
    }

    /// Forgets tokens that expired or were revoked more than a day ago, and tokens of a clock that was ahead. Keeps the
    /// tokens that enrolled an agent as `identity`.
    pub fn prune(&mut self, identity: &AgentIdentity, now: u64) {
        self.entries.retain(|entry| {
            let counts = entry.identity == *identity && !entry.keys.is_empty();
            let is_ahead = entry.expires.saturating_sub(now) > LONGEST;
            counts || !is_ahead && entry.expires.saturating_add(REMEMBERED) > now
        });
    }

    /// How many agents have enrolled as `identity` under the present root. Counts only tokens that are kept.
    pub fn enrolled(&self, identity: &AgentIdentity) -> usize {
        let counts = |entry: &&Entry| entry.identity == *identity && entry.root == self.root;
        self.entries.iter().filter(counts).map(|entry| entry.keys.len()).sum()
    }

    /// Whether a token can still enrol an agent as `identity` at `now`.
    pub fn is_live(&self, token: &Fingerprint, identity: &AgentIdentity, now: u64) -> bool {
        let entry = self.find(token).and_then(|at| self.entries.get(at));
        entry.is_some_and(|entry| {
            entry.identity == *identity && !entry.revoked && entry.counts(now) && entry.redemptions_left > 0
        })
    }

    /// How many tokens are kept, expired and revoked ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no token is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of a token. Every entry is compared, each in constant time, so that timing reveals nothing.
    fn find(&self, token: &Fingerprint) -> Option<usize> {
        let mut found = None;
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.token.same(token) {
                found = Some(at);
            }
        }
        found
    }
}
