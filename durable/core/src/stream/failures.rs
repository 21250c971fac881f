//! Failures of a stream.

use std::mem::replace;

/// A direction of messages, which fails independently of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the stream.
    In,
    /// Out of the stream.
    Out,
}

/// The present failures of one stream, by way.
#[derive(Debug, Default)]
pub struct Failures {
    inward: Option<String>,
    outward: Option<String>,
    /// Whether a refusal was logged since a way last worked.
    is_refusal_told: bool,
}

impl Failures {
    /// Records that a way fails. Returns whether that is logged: once until the way works again. A failure of both ways
    /// for the same reason is logged once.
    pub fn fails(&mut self, way: Way, why: String) -> bool {
        let (own, other) = match way {
            Way::In => (&mut self.inward, &self.outward),
            Way::Out => (&mut self.outward, &self.inward),
        };
        let is_news = own.is_none() && other.as_ref() != Some(&why);
        *own = Some(why);
        is_news
    }

    /// As [`Failures::fails`], where the server refuses the user. That needs a person, so it is logged even if the way
    /// failed before for another reason: once until a way works again, however often the server refuses or is away.
    pub fn refused(&mut self, way: Way, why: String) -> bool {
        self.fails(way, why);
        !replace(&mut self.is_refusal_told, true)
    }

    /// Records that a way works.
    pub fn works(&mut self, way: Way) {
        self.is_refusal_told = false;
        match way {
            Way::In => self.inward = None,
            Way::Out => self.outward = None,
        }
    }

    /// The present failure. That of the way in comes first.
    pub fn present(&self) -> Option<&str> {
        self.inward.as_deref().or(self.outward.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(failures: &mut Failures, way: Way, why: &str) -> bool {
        failures.fails(way, why.to_owned())
    }

    #[test]
    fn a_failure_is_told_once_until_its_way_works_again_whatever_the_later_reasons_are() {
        for way in [Way::In, Way::Out] {
            let mut failures = Failures::default();
            failures.works(way);
            assert_eq!(failures.present(), None, "nothing failed");
            assert!(fails(&mut failures, way, "broken"));
            assert!(!fails(&mut failures, way, "broken") && !fails(&mut failures, way, "still broken"));
            assert_eq!(failures.present(), Some("still broken"));
            failures.works(way);
            assert_eq!(failures.present(), None);
            assert!(fails(&mut failures, way, "broken"));
        }
    }

    #[test]
    fn what_breaks_both_ways_is_told_once_and_stays_until_both_work() {
        for (first, second) in [(Way::In, Way::Out), (Way::Out, Way::In)] {
            let mut failures = Failures::default();
            assert!(fails(&mut failures, first, "broken") && !fails(&mut failures, second, "broken"));
            failures.works(first);
            assert_eq!(failures.present(), Some("broken"));
            failures.works(second);
            assert_eq!(failures.present(), None);
        }
    }

    #[test]
    fn each_way_tells_a_reason_of_its_own_and_that_of_the_way_in_is_shown() {
        let mut failures = Failures::default();
        assert!(fails(&mut failures, Way::Out, "may not read") && fails(&mut failures, Way::In, "may not publish"));
        assert_eq!(failures.present(), Some("may not publish"));
    }

    #[test]
    fn a_refusal_behind_another_failure_is_told_once_until_a_way_works_again() {
        let refused = |failures: &mut Failures, way: Way| failures.refused(way, "refused".to_owned());
        for (first, second) in [(Way::In, Way::Out), (Way::Out, Way::In)] {
            let mut failures = Failures::default();
            for _ in 0..2 {
                assert!(fails(&mut failures, first, "away") && !fails(&mut failures, second, "away"));
                assert!(refused(&mut failures, first), "the reason is another one");
                assert_eq!(failures.present(), Some(if first == Way::In { "refused" } else { "away" }));
                assert!(!refused(&mut failures, second) && !refused(&mut failures, first));
                assert_eq!(failures.present(), Some("refused"));
                assert!(!fails(&mut failures, first, "away") && !refused(&mut failures, first), "it comes and goes");
                failures.works(first);
                failures.works(second);
                assert_eq!(failures.present(), None);
            }
        }
    }

    #[test]
    fn a_refusal_that_is_the_first_failure_is_told_once() {
        let mut failures = Failures::default();
        assert!(failures.refused(Way::Out, "refused".to_owned()));
        assert!(!failures.refused(Way::In, "refused".to_owned()));
    }
}
