//! Where the stream of one proxy is: what it was sent, what it has reported, and what is sent next.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use proxy_api::{Digest, Origin, ReportPart, Version};

use crate::translate::program::Snapshot;

/// Most snapshots in flight, which are sent and not reported yet. Beyond that, newer snapshots wait.
const UNREPORTED: usize = 8;

/// The snapshot that a proxy with this digest runs when it connects. Absent if only the proxy knows what it holds: it
/// runs something else, or keeps listeners of forwards that cannot be read.
#[must_use]
pub fn running<'a>(digest: &Digest, unreadable: &BTreeSet<Origin>, now: &'a Snapshot) -> Option<Cow<'a, Snapshot>> {
    if !unreadable.is_empty() {
        return None;
    }
    if now.digest == *digest {
        return Some(Cow::Borrowed(now));
    }
    let nothing = Snapshot::empty(Version::default());
    (nothing.digest == *digest).then_some(Cow::Owned(nothing))
}

/// The position of a stream.
#[derive(Debug)]
pub struct Position {
    /// The last snapshot that was sent.
    at: Arc<Snapshot>,
    /// Numbers with their digests of snapshots that were sent, from the one that the proxy reported last.
    sent: VecDeque<(u64, Digest)>,
    /// A newer snapshot is not sent yet.
    is_behind: bool,
}

/// What is passed on of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The proxy runs the very snapshot that was sent under the number: the digests agree.
    pub agreed: bool,
    /// Listeners that are no longer published were left out.
    pub is_outdated: bool,
}

/// A report names a version that was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverSent;

impl Position {
    /// The position of a proxy that was brought to this snapshot.
    #[must_use]
    pub fn new(at: Arc<Snapshot>) -> Self {
        let sent = VecDeque::from([(at.version.number, at.digest.clone())]);
        Self { at, sent, is_behind: false }
    }

    /// There is a newer snapshot.
    pub fn outdate(&mut self) {
        self.is_behind = true;
    }

    /// The snapshot from which the next step leads; `None` if no step is due. A proxy that is silent is not sent more.
    #[must_use]
    pub fn due(&self) -> Option<&Arc<Snapshot>> {
        (self.is_behind && self.sent.len() < UNREPORTED).then_some(&self.at)
    }

    /// The newest snapshot was sent.
    pub fn sent(&mut self, next: Arc<Snapshot>) {
        self.sent.push_back((next.version.number, next.digest.clone()));
        self.at = next;
        self.is_behind = false;
    }

    /// Takes a part of a report, and leaves the listeners in it that are published.
    ///
    /// # Errors
    /// The version was never sent.
    pub fn reported(&mut self, part: &mut ReportPart) -> Result<Reported, NeverSent> {
        let Version { epoch, number } = &part.version;
        if *epoch != self.at.version.epoch || *number > self.at.version.number {
            return Err(NeverSent);
        }
        // The last one stays: nothing newer was sent.
        while self.sent.front().is_some_and(|(earlier, _)| earlier < number) {
            self.sent.pop_front();
        }
        let agreed = self.sent.iter().any(|(sent, digest)| sent == number && *digest == part.digest);
        let known = part.listeners.len();
        part.listeners.retain(|id, _| self.at.listeners.contains_key(id));
        Ok(Reported { agreed, is_outdated: part.listeners.len() != known })
    }
}
