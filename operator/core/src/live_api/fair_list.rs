//! A bounded list in which each proxy has an equal share.

use std::collections::BTreeMap;

use crate::world::ObjectKey;

/// The sort key of a row: the bytes of its own proxy's rows up to it, then the pod. The rows of all proxies thus
/// interleave at the same pace.
type Place = (usize, ObjectKey);

/// Rows of several proxies, bounded in their number and in the bytes of their texts. Each proxy has an equal share of
/// the room, and proxies that need more divide what others leave. Which rows are listed does not depend on the order of
/// the answers.
#[derive(Debug)]
pub(super) struct FairList<T> {
    most: usize,
    most_bytes: usize,
    /// The fewest bytes that a row counts as, so that proxies with short texts have equal numbers of rows.
    least: usize,
    /// Rows, each with the bytes of its texts.
    rows: BTreeMap<Place, (usize, T)>,
    /// Bytes of the texts in `rows`.
    bytes: usize,
    /// The first place that no longer fits.
    end: Option<Place>,
}

impl<T> FairList<T> {
    /// An empty list for at most `most` rows, with at most `most_bytes` of texts.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let least = most_bytes.div_ceil(most.max(1));
        Self { most, most_bytes, least, rows: BTreeMap::new(), bytes: 0, end: None }
    }

    /// Adds the rows of the proxy of a pod, each with the bytes of its texts; called once for each pod. The first rows
    /// are listed first. Returns how many rows, of whichever proxies, no longer fit. The list never exceeds its bounds
    /// by more than one row.
    pub(super) fn add(&mut self, pod: &ObjectKey, rows: impl IntoIterator<Item = (usize, T)>) -> u64 {
        let (mut told, mut left_out) = (0_usize, 0);
        for (bytes, row) in rows {
            told = told.saturating_add(bytes.max(self.least));
            let place = (told, pod.clone());
            if self.end.as_ref().is_some_and(|end| place >= *end) {
                left_out += 1;
                continue;
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.rows.insert(place, (bytes, row));
            left_out += self.shorten();
        }
        left_out
    }

    /// Removes the last rows until the others fit. Returns how many it removed.
    fn shorten(&mut self) -> u64 {
        let mut left_out = 0;
        while self.rows.len() > self.most || self.bytes > self.most_bytes {
            let Some((place, (bytes, _))) = self.rows.pop_last() else { break };
            self.bytes = self.bytes.saturating_sub(bytes);
            self.end = Some(place);
            left_out += 1;
        }
        left_out
    }

    /// The rows, sorted by pod. The rows of a pod keep their order.
    pub(super) fn rows(&self) -> Vec<(&ObjectKey, &T)> {
        let mut rows: Vec<(&ObjectKey, &T)> = self.rows.iter().map(|((_, pod), (_, row))| (pod, row)).collect();
        // The sort is stable.
        rows.sort_by_key(|(pod, _)| *pod);
        rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The bytes of the rows of each pod, in the order in which they answer.
    type Answers<'a> = &'a [(&'a str, Vec<usize>)];

    /// The listed rows of each of these pods, and how many are left out. The value of a row is its position in its answer.
    fn listed(most: usize, most_bytes: usize, answers: Answers<'_>) -> (BTreeMap<String, Vec<usize>>, u64) {
        let (mut list, mut left_out) = (FairList::new(most, most_bytes), 0);
        for (pod, rows) in answers {
            let rows = rows.iter().enumerate().map(|(at, bytes)| (*bytes, at));
            left_out += list.add(&ObjectKey::new("ns", *pod), rows);
        }
        let mut of_pods: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (pod, at) in list.rows() {
            of_pods.entry(pod.name.clone()).or_default().push(*at);
        }
        (of_pods, left_out)
    }

    fn of<const PODS: usize>(pods: [(&str, usize); PODS]) -> BTreeMap<String, Vec<usize>> {
        pods.into_iter().map(|(pod, count)| (pod.to_owned(), (0..count).collect())).collect()
    }

    #[test]
    fn a_proxy_alone_has_all_the_room_and_its_last_rows_are_left_out() {
        assert_eq!(listed(3, 3000, &[("a", vec![1; 5])]), (of([("a", 3)]), 2));
        assert_eq!(listed(9, 3000, &[("a", vec![1000; 5])]), (of([("a", 3)]), 2));
        assert_eq!(listed(9, 3000, &[("a", vec![4000, 1])]), (BTreeMap::new(), 2));
    }

    #[test]
    fn proxies_with_many_rows_leave_the_others_their_part_and_share_what_these_do_not_need() {
        let liar = |pod| (pod, vec![1; 100]);
        let parts = (of([("a", 2), ("b", 2), ("x", 1), ("y", 1)]), 198);
        let honest = |pod, count| (pod, vec![1; count]);
        assert_eq!(listed(6, 6000, &[liar("x"), liar("y"), honest("a", 2), honest("b", 2)]), parts);
        assert_eq!(listed(6, 6000, &[honest("b", 2), liar("y"), honest("a", 2), liar("x")]), parts);
        let (rows, left_out) = listed(6, 6000, &[liar("x"), liar("y"), honest("a", 1), honest("b", 1)]);
        assert_eq!((rows, left_out), (of([("a", 1), ("b", 1), ("x", 2), ("y", 2)]), 196));
    }

    #[test]
    fn a_proxy_with_long_texts_has_fewer_rows_and_not_more_bytes() {
        let answers = [("liar", vec![400; 5]), ("a", vec![100; 2]), ("b", vec![100; 2]), ("c", vec![100; 2])];
        assert_eq!(listed(100, 1000, &answers), (of([("a", 2), ("b", 2), ("c", 2), ("liar", 1)]), 4));
    }

    proptest! {
        #[test]
        fn each_proxy_has_its_part_whoever_answers_first_and_the_bounds_hold(
            answers in vec(vec(1_usize..400, 0..12), 1..8), most in 8_usize..20,
        ) {
            const BYTES: usize = 2000;
            let names: Vec<String> = (0..answers.len()).map(|at| format!("p{at}")).collect();
            let mut answers: Vec<(&str, Vec<usize>)> = names.iter().map(String::as_str).zip(answers).collect();
            let (rows, left_out) = listed(most, BYTES, &answers);
            let (mut count, mut bytes) = (0, 0);
            for (pod, all) in &answers {
                let own = rows.get(*pod).map_or(0, Vec::len);
                prop_assert_eq!(rows.get(*pod).cloned().unwrap_or_default(), (0..own).collect::<Vec<_>>());
                (count, bytes) = (count + own, bytes + all[..own].iter().sum::<usize>());
                let mut told = 0;
                let part = all.iter().take_while(|bytes| {
                    told += BYTES.div_ceil(most).max(**bytes);
                    told <= BYTES / answers.len()
                });
                prop_assert!(part.count() <= own, "{pod} has {own} of {all:?}");
            }
            let told: usize = answers.iter().map(|(_, all)| all.len()).sum();
            prop_assert!(count <= most && bytes <= BYTES && count as u64 + left_out == told as u64);
            answers.reverse();
            prop_assert_eq!(listed(most, BYTES, &answers), (rows, left_out));
        }
    }
}
