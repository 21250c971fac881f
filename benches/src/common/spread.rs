//! The values of several rounds in short.

use crate::unit::Unit;

/// The median, the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None`: there are no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        // Of an even number of values, the mean of the two in the middle.
        let median = if sorted.len().is_multiple_of(2) { sorted.get(middle - 1)?.midpoint(upper) } else { upper };
        Some(Self { least: *sorted.first()?, median, most: *sorted.last()? })
    }

    /// The median, with the least and the most in brackets.
    pub(crate) fn show(self, unit: Unit) -> String {
        let [least, median, most] = [self.least, self.median, self.most].map(|value| unit.show(value));
        if least == most { median } else { format!("{median} ({least}–{most})") }
    }
}
