//! The age of waiting messages, by a monotonic clock: messages carry the time of the machine's clock, which may be set.

use std::collections::VecDeque;

/// The most marks kept. After a day, the age of a message is accurate to a sixth of it or better.
const MARKS: usize = 256;

/// The arrival times of messages, as observed.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// The number of messages at each observed second of the process clock, in order.
    marks: VecDeque<(u64, u64)>,
    /// The first mark: the arrival times of its messages are unknown.
    first: Option<(u64, u64)>,
}

/// How long a message has waited, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// This long.
    Known(u64),
    /// At least this long: the message was there at the first observation.
    AtLeast(u64),
}

impl Arrivals {
    /// Observes at second `now` that the next message will get the number `next`. Call it about once a second.
    pub fn see(&mut self, next: u64, now: u64) {
        if self.first.is_none() {
            self.first = Some((next, now));
        }
        // A server that has dropped messages of a stream reuses their numbers.
        self.first = self.first.map(|(first, at)| (first.min(next), at));
        while self.marks.back().is_some_and(|(last, _)| *last > next) {
            self.marks.pop_back();
        }
        if self.marks.back().is_some_and(|(last, _)| *last == next) {
            return;
        }
        if self.marks.len() >= MARKS {
            self.thin(now);
        }
        self.marks.push_back((next, now));
    }

    /// Removes the mark whose absence makes ages inaccurate by the smallest part.
    fn thin(&mut self, now: u64) {
        let wrong = |three: &[(u64, u64)]| match three {
            [(_, before), _, (_, after)] => (after.saturating_sub(*before) << 20) / now.saturating_sub(*before).max(1),
            _ => u64::MAX,
        };
        let threes = self.marks.make_contiguous().windows(3).enumerate();
        if let Some((before, _)) = threes.min_by_key(|(_, three)| wrong(three)) {
            self.marks.remove(before + 1);
        }
    }

    /// How long the message of this number, and all earlier ones that wait, have waited at second `now`. Forgets marks
    /// of earlier messages.
    pub fn age(&mut self, number: u64, now: u64) -> Age {
        while self.marks.front().is_some_and(|(next, _)| *next <= number) {
            self.marks.pop_front();
        }
        match (self.first, self.marks.front()) {
            (Some((next, at)), _) if number < next => Age::AtLeast(now.saturating_sub(at)),
            (_, Some((_, at))) => Age::Known(now.saturating_sub(*at)),
            // The message arrived after the last observation.
            (_, None) => Age::Known(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_waits_from_the_look_that_saw_it_first_and_one_of_the_first_look_for_at_least_as_long() {
        let mut arrivals = Arrivals::default();
        for (next, now) in [(3, 100), (3, 101), (5, 102), (5, 110), (9, 111)] {
            arrivals.see(next, now);
        }
        assert_eq!(arrivals.age(2, 120), Age::AtLeast(20), "it was there");
        assert_eq!(arrivals.age(3, 120), Age::Known(18));
        assert_eq!(arrivals.age(4, 121), Age::Known(19));
        assert_eq!(arrivals.age(5, 121), Age::Known(10));
        assert_eq!(arrivals.age(9, 121), Age::Known(0), "it was not seen yet");
        arrivals.see(10, 122);
        assert_eq!(arrivals.age(9, 125), Age::Known(3));
    }

    #[test]
    fn numbers_that_are_given_again_are_those_of_later_messages() {
        let mut arrivals = Arrivals::default();
        for (next, now) in [(8, 100), (9, 101), (4, 200), (6, 201)] {
            arrivals.see(next, now);
        }
        assert_eq!(
            [3, 4, 5].map(|number| arrivals.age(number, 210)),
            [Age::AtLeast(110), Age::Known(9), Age::Known(9)]
        );
    }

    #[test]
    fn of_marks_at_equal_distances_the_second_one_goes_first() {
        let mut arrivals = Arrivals::default();
        for now in 0..=256 {
            arrivals.see(now, now);
        }
        assert_eq!([0, 1, 2].map(|number| arrivals.age(number, 300)), [298, 298, 297].map(Age::Known));
    }

    #[test]
    fn however_long_a_sink_is_away_few_marks_are_kept_and_they_say_nearly_the_age() {
        let mut arrivals = Arrivals::default();
        for now in 0..20_000 {
            arrivals.see(now, now);
            assert!(arrivals.marks.len() <= MARKS);
        }
        for number in [1, 100, 5_000, 12_345, 19_000, 19_900] {
            let Age::Known(age) = arrivals.age(number, 20_000) else { panic!("it came later") };
            let real = 20_000 - number;
            assert!(age < real && real - age <= real / 6 + 1, "{age} of {real}");
        }
    }
}
