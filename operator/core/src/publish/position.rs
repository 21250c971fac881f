//! The position of one proxy's stream: which snapshots were sent and reported, and which one is next.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use proxy_api::{Digest, Origin, ReportPart, Version};

use crate::translate::program::Snapshot;

/// The most snapshots in flight, which are sent but not reported yet. Beyond that, newer snapshots wait.
const UNREPORTED: usize = 8;

/// Returns the snapshot that a proxy with this digest runs when it connects. Absent if the operator cannot know: the
/// proxy runs something else, or keeps listeners of forwards that cannot be read.
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
    /// Numbers and digests of the snapshots that were sent, from the one that the proxy reported last.
    sent: VecDeque<(u64, Digest)>,
    /// Whether a newer snapshot is not sent yet.
    is_behind: bool,
}

/// The outcome of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Whether the proxy runs the very snapshot that was sent under the number: the digests agree.
    pub agreed: bool,
    /// Whether listeners were left out that are no longer published.
    pub is_outdated: bool,
}

/// The error that a report names a version that was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverSent;

impl Position {
    /// The position of a proxy that runs this snapshot.
    #[must_use]
    pub fn new(at: Arc<Snapshot>) -> Self {
        let sent = VecDeque::from([(at.version.number, at.digest.clone())]);
        Self { at, sent, is_behind: false }
    }

    /// Records that there is a newer snapshot.
    pub fn outdate(&mut self) {
        self.is_behind = true;
    }

    /// The snapshot from which the next step starts; `None` if no step is due. A proxy that does not report is not sent
    /// more.
    #[must_use]
    pub fn due(&self) -> Option<&Arc<Snapshot>> {
        (self.is_behind && self.sent.len() < UNREPORTED).then_some(&self.at)
    }

    /// Records that the newest snapshot was sent.
    pub fn sent(&mut self, next: Arc<Snapshot>) {
        self.sent.push_back((next.version.number, next.digest.clone()));
        self.at = next;
        self.is_behind = false;
    }

    /// Takes a part of a report, and removes the listeners in it that are no longer published.
    ///
    /// # Errors
    /// The version was never sent.
    pub fn reported(&mut self, part: &mut ReportPart) -> Result<Reported, NeverSent> {
        let Version { epoch, number } = &part.version;
        if *epoch != self.at.version.epoch || *number > self.at.version.number {
            return Err(NeverSent);
        }
        // The last entry stays: nothing newer was sent.
        while self.sent.front().is_some_and(|(earlier, _)| earlier < number) {
            self.sent.pop_front();
        }
        let agreed = self.sent.iter().any(|(sent, digest)| sent == number && *digest == part.digest);
        let known = part.listeners.len();
        part.listeners.retain(|id, _| self.at.listeners.contains_key(id));
        Ok(Reported { agreed, is_outdated: part.listeners.len() != known })
    }
}
