//! The last report, which readers share. A change of few entries does not copy the others: the report before the last
//! one becomes the next one. A reader that compares reports need not compare all entries: a report knows the entries
//! that the last few changes concerned.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    ops::Deref,
    sync::Arc,
};

use proxy_api::{CONTRACT, ListenerId, ListenerReport, ListenerState, Report, Version};

/// Most entries by which an old report may lag to become the next one. Updating more costs more than a copy.
const MOST_BEHIND: usize = 256;
/// Number of last reports whose changes are known. A reader that follows is at most a few behind.
const MOST_KNOWN: usize = 16;

/// A report that readers share.
#[derive(Clone, Debug, Default)]
pub struct Published {
    report: Arc<Report>,
    trail: Arc<Trail>,
}

/// The changes of the last reports.
#[derive(Clone, Debug, Default)]
struct Trail {
    /// Number of reports up to this one.
    number: usize,
    /// The listeners with other entries than before, for each of the last reports. The last one is this report.
    concerned: VecDeque<Arc<[ListenerId]>>,
}

impl Deref for Published {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

impl Published {
    /// Whether both are the same report.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.report, &other.report)
    }

    /// The listeners whose entries may differ from those of an earlier report of the same process. `None` if that is
    /// too long ago, or there are many: then all are compared.
    #[must_use]
    pub fn concerned_since(&self, earlier: &Self) -> Option<BTreeSet<ListenerId>> {
        let concerned = &self.trail.concerned;
        let behind = self.trail.number.checked_sub(earlier.trail.number)?;
        let known = concerned.len().checked_sub(behind)?;
        Some(concerned.iter().skip(known).flat_map(|ids| ids.iter().cloned()).collect())
    }

    /// Whether the content differs from that of an earlier report of the same process.
    #[must_use]
    pub fn differs_from(&self, earlier: &Self) -> bool {
        if self.is(earlier) {
            return false;
        }
        let Some(concerned) = self.concerned_since(earlier) else { return **self != **earlier };
        let differs = |id: &ListenerId| self.listeners.get(id) != earlier.listeners.get(id);
        self.contract != earlier.contract || self.version != earlier.version || concerned.iter().any(differs)
    }

    /// The report as it is true now. `is_draining`: every listener was closed after this report, which is the last one.
    ///
    /// The operator is not sent this: it counts no pod that terminates, and in any other pod it takes a
    /// listener that is `Draining` for one without a report.
    #[must_use]
    pub fn shown(&self, is_draining: bool) -> Arc<Report> {
        let mut report = self.report.clone();
        if is_draining {
            let listeners = Arc::make_mut(&mut report).listeners.values_mut();
            for listener in listeners.filter(|listener| listener.state == ListenerState::Bound) {
                listener.state = ListenerState::Draining;
            }
        }
        report
    }

    /// Adds the changes of the next report.
    fn follow(&mut self, news: &News) {
        let Trail { number, concerned } = Arc::make_mut(&mut self.trail);
        *number += 1;
        if news.entries.len() > MOST_BEHIND {
            return concerned.clear();
        }
        if concerned.len() == MOST_KNOWN {
            concerned.pop_front();
        }
        concerned.push_back(news.entries.iter().map(|(id, _)| id.clone()).collect());
    }
}

/// The changes of a report.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Version of the configuration.
    pub version: Version,
    /// The entries that differ; `None`: the listener has no entry any more.
    pub entries: Vec<(ListenerId, Option<ListenerReport>)>,
}

impl News {
    /// Applies these changes to a report.
    fn tell(self, report: &mut Report) {
        (report.contract, report.version) = (CONTRACT, self.version);
        for (id, entry) in self.entries {
            match entry {
                Some(entry) => report.listeners.insert(id, entry),
                None => report.listeners.remove(&id),
            };
        }
    }
}

/// Builds reports from earlier ones.
#[derive(Debug, Default)]
pub struct Reports {
    /// The report before the last one, and the changes between them.
    spare: Option<(Arc<Report>, News)>,
    /// Whether there was a new report since the last call of [`Self::rest`].
    is_busy: bool,
    copies: u64,
}

impl Reports {
    /// Applies these changes to the last published report. Readers keep their version unchanged.
    pub fn renew(&mut self, published: &mut Published, news: News) {
        self.is_busy = true;
        published.follow(&news);
        let last = &mut published.report;
        if let Some(report) = Arc::get_mut(last) {
            // No reader has the report. The spare one would lag by more.
            self.spare = None;
            return news.tell(report);
        }
        let spare = self.up_to_date();
        self.copies += u64::from(spare.is_none());
        let mut next = spare.unwrap_or_else(|| Arc::new((**last).clone()));
        news.clone().tell(Arc::make_mut(&mut next));
        let before = mem::replace(last, next);
        self.spare = (news.entries.len() <= MOST_BEHIND).then_some((before, news));
    }

    /// Called at intervals: drops the spare report if there was no new report since the last call.
    pub fn rest(&mut self) {
        if !mem::take(&mut self.is_busy) {
            self.spare = None;
        }
    }

    /// Number of reports that were copied.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// Returns the spare report, updated to the last one. `None` while a reader has it.
    fn up_to_date(&mut self) -> Option<Arc<Report>> {
        let (mut spare, behind) = self.spare.take()?;
        behind.tell(Arc::get_mut(&mut spare)?);
        Some(spare)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_api::{Digest, Origin, Revision};

    use super::*;

    fn id(at: u16) -> ListenerId {
        ListenerId::new(Origin::port_forward("ns", format!("f{at}")), "l")
    }

    fn entry(revision: u8) -> ListenerReport {
        ListenerReport::usual(Revision(revision.to_string().into()))
    }

    fn news(number: u64, entries: &[(u16, Option<u8>)]) -> News {
        let version = Version { epoch: "e".to_owned(), number };
        News { version, entries: entries.iter().map(|(at, revision)| (id(*at), revision.map(entry))).collect() }
    }

    #[test]
    fn a_reader_that_follows_costs_one_copy_of_all_entries() {
        let (mut reports, mut last) = (Reports::default(), Published::default());
        let all: Vec<(u16, Option<u8>)> = (0..10_000).map(|at| (at, Some(0))).collect();
        reports.renew(&mut last, news(1, &all));
        assert_eq!(reports.copies(), 0, "nobody reads");
        let mut reader = last.clone();
        for number in 2..100_u8 {
            reports.renew(&mut last, news(number.into(), &[(number.into(), Some(number))]));
            assert_eq!(reader.version.number, u64::from(number) - 1, "what is read stays as it is");
            reader = last.clone();
            assert_eq!(reader.listeners[&id(number.into())], entry(number));
        }
        assert_eq!((reports.copies(), reader.listeners.len()), (1, 10_000));
        reports.rest();
        assert!(reports.spare.is_some(), "there were news");
        reports.rest();
        assert!(reports.spare.is_none(), "there were none");
    }

    #[test]
    fn a_report_that_is_far_behind_is_not_kept() {
        for (count, is_kept) in [(256, true), (257, false)] {
            let (mut reports, mut last) = (Reports::default(), Published::default());
            let _reader = last.clone();
            let all: Vec<(u16, Option<u8>)> = (0..count).map(|at| (at, Some(0))).collect();
            reports.renew(&mut last, news(1, &all));
            assert_eq!(reports.spare.is_some(), is_kept, "{count} entries");
        }
    }

    #[test]
    fn what_was_new_is_known_of_the_last_reports() {
        let (mut reports, mut last) = (Reports::default(), Published::default());
        let mut read = vec![last.clone()];
        for number in 1..=20_u16 {
            reports.renew(&mut last, news(number.into(), &[(number, Some(0))]));
            read.push(last.clone());
        }
        let concerned = |last: &Published, at: usize| last.concerned_since(&read[at]);
        assert_eq!(concerned(&last, 3), None, "too long ago");
        assert_eq!(concerned(&last, 4), Some((5..=20).map(id).collect()));
        assert_eq!(concerned(&last, 19), Some(BTreeSet::from([id(20)])));
        assert_eq!(concerned(&last, 20), Some(BTreeSet::new()));
        assert_eq!(read[19].concerned_since(&last), None, "an earlier one does not know of it");
        let many: Vec<(u16, Option<u8>)> = (0..=256).map(|at| (at, Some(1))).collect();
        reports.renew(&mut last, news(21, &many));
        assert_eq!(concerned(&last, 20), None, "nearly all are concerned");
        let before = last.clone();
        reports.renew(&mut last, news(22, &[(7, None)]));
        assert_eq!(concerned(&last, 20), None);
        assert_eq!(last.concerned_since(&before), Some(BTreeSet::from([id(7)])));
    }

    #[test]
    fn a_report_differs_by_its_version_or_an_entry_and_not_by_an_entry_that_is_again_as_it_was() {
        let (mut reports, mut last) = (Reports::default(), Published::default());
        let mut tell = |number, entries: &[(u16, Option<u8>)]| {
            reports.renew(&mut last, news(number, entries));
            last.clone()
        };
        let [first, other, again] = [0, 1, 0].map(|revision| tell(1, &[(7, Some(revision))]));
        assert!(other.differs_from(&first) && again.differs_from(&other));
        assert!(!again.differs_from(&first) && !again.differs_from(&again));
        assert!(tell(2, &[]).differs_from(&again), "another version");
        assert!(again.is(&again.clone()) && !again.is(&first), "it says the same, and is another one");
    }

    #[test]
    fn a_drain_shows_bound_listeners_as_draining_and_leaves_the_report_as_it_is() {
        let (mut reports, mut last) = (Reports::default(), Published::default());
        let failed = ListenerReport { state: ListenerState::Failed, ..entry(2) };
        let entries = vec![(id(1), Some(entry(1))), (id(2), Some(failed))];
        reports.renew(&mut last, News { version: Version::default(), entries });
        let states = |report: &Report| [1, 2].map(|at| report.listeners[&id(at)].state);
        assert_eq!(states(&last.shown(false)), [ListenerState::Bound, ListenerState::Failed]);
        assert_eq!(states(&last.shown(true)), [ListenerState::Draining, ListenerState::Failed]);
        assert_eq!(states(&last), [ListenerState::Bound, ListenerState::Failed]);
    }

    proptest! {
        #[test]
        fn reports_say_what_copies_of_them_would_say(
            steps in prop::collection::vec((prop::collection::vec((0..4_u16, any::<Option<u8>>()), 0..3), 0..3_u8), 0..20),
        ) {
            let (mut reports, mut last) = (Reports::default(), Published::default());
            let mut expected = Report::default();
            // The reports that readers hold, with their content when they took them.
            let mut read: Vec<(Published, Report)> = Vec::new();
            for (number, (entries, readers)) in (1..).zip(steps) {
                let news = news(number, &entries);
                news.clone().tell(&mut expected);
                reports.renew(&mut last, news);
                prop_assert_eq!(&*last, &expected);
                for (held, was) in &read {
                    prop_assert_eq!(&**held, was);
                    prop_assert_eq!(last.differs_from(held), expected != *was);
                    let digest = Digest::default();
                    let all = expected.parts_since(Some(was), &digest, false, 4);
                    match last.concerned_since(held) {
                        Some(among) => prop_assert_eq!(last.parts_among(held, &among, &digest, 4), all),
                        None => prop_assert!(number - held.version.number > MOST_KNOWN as u64, "few reports ago"),
                    }
                }
                // None, the readers of the last two, or all keep reading.
                let gone = match readers {
                    0 => read.len(),
                    1 => read.len().saturating_sub(2),
                    _ => 0,
                };
                read.drain(..gone);
                read.push((last.clone(), expected.clone()));
            }
        }
    }
}
