//! The table in Markdown, as docs/performance.md has it.

use std::collections::BTreeMap;

use crate::{
    kind::{Carrier, Kind},
    rows::{Goal, Quantity, Row},
    spread::Spread,
};

/// What the goals are a multiple of.
const MEASURE: Kind = Kind::Rathole(Carrier::Tls);

/// A measured cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) row: Row,
    pub(crate) quantity: Quantity,
    pub(crate) kind: Kind,
}

/// Results, one value for each round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<Cell, Vec<f64>>,
    /// Rounds without a value.
    failed: BTreeMap<(Row, Kind), usize>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, value: f64) {
        self.values.entry(cell).or_default().push(value);
    }

    /// A measurement failed, or was left out because others of this tunnel had failed.
    pub(crate) fn fail(&mut self, row: Row, kind: Kind) {
        *self.failed.entry((row, kind)).or_default() += 1;
    }

    fn spread(&self, cell: Cell) -> Option<Spread> {
        Spread::of(self.values.get(&cell)?)
    }

    fn median(&self, cell: Cell) -> Option<f64> {
        self.spread(cell).map(|spread| spread.median)
    }

    /// The goal in words, and whether Portlane reaches it. `None`: that is not known.
    fn verdict(&self, row: Row, quantity: Quantity) -> Option<(String, Option<bool>)> {
        let own = self.median(Cell { row, quantity, kind: Kind::Portlane });
        Some(match row.goal(quantity)? {
            Goal::OfRathole(factor) => {
                let other = self.median(Cell { row, quantity, kind: MEASURE });
                (format!("≥ {factor:.1}"), own.zip(other).map(|(own, other)| own >= other * factor))
            }
            Goal::Most(most) => {
                let words = format!("≤ {} {}", row.unit(quantity).show(most), row.unit(quantity).name());
                (words, own.map(|own| own <= most))
            }
        })
    }

    /// The table of these rows. `absent`: what could not be built.
    pub(crate) fn table(&self, rows: &[Row], absent: &[Kind]) -> String {
        let names = Kind::ALL.map(Kind::name).join(" | ");
        let mut text = format!("| | {names} | ratio | goal | |\n|---|{}", "---|".repeat(Kind::ALL.len() + 3));
        for row in rows {
            for quantity in row.quantities() {
                text += &self.line(*row, *quantity, absent);
            }
        }
        text
    }

    fn line(&self, row: Row, quantity: Quantity, absent: &[Kind]) -> String {
        let (cell, unit) = (|kind| Cell { row, quantity, kind }, row.unit(quantity));
        let mut line = format!("\n| {}: {}, {} |", row.title(), quantity.name(), unit.name());
        for kind in Kind::ALL {
            let shown = self.spread(cell(kind)).map(|spread| spread.show(unit));
            let missing = if absent.contains(&kind) && row.suits(kind) { "not to be had" } else { "" };
            line += &format!(" {} |", shown.as_deref().unwrap_or(missing));
        }
        let both = self.median(cell(Kind::Portlane)).zip(self.median(cell(MEASURE)));
        let ratio = both.filter(|(_, other)| *other > 0.0).map(|(own, other)| format!("{:.2}", own / other));
        let (goal, met) = match self.verdict(row, quantity) {
            None => (String::new(), ""),
            Some((goal, None)) => (goal, "unknown"),
            Some((goal, Some(true))) => (goal, "met"),
            Some((goal, Some(false))) => (goal, "**missed**"),
        };
        line + &format!(" {} | {goal} | {met} |", ratio.unwrap_or_default())
    }

    /// Which medians are of fewer rounds, or missing: a line for each.
    pub(crate) fn failures(&self, rounds: usize) -> Vec<String> {
        let told = |((row, kind), failed): (&(Row, Kind), &usize)| {
            format!("{} failed in {failed} of {rounds} rounds at \"{}\".", kind.name(), row.title())
        };
        self.failed.iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of one row with these values of Portlane, and of rathole over TLS.
    fn scene(row: Row, quantity: Quantity, own: &[f64], other: Option<f64>) -> Results {
        let mut results = Results::default();
        for value in own {
            results.add(Cell { row, quantity, kind: Kind::Portlane }, *value);
        }
        if let Some(value) = other {
            results.add(Cell { row, quantity, kind: MEASURE }, value);
        }
        results
    }

    #[test]
    fn a_rate_is_held_against_rathole_over_tls() {
        let is_met = |row, own, other| {
            let verdict = scene(row, Quantity::Rate, &[own], other).verdict(row, Quantity::Rate);
            verdict.expect("a goal").1
        };
        assert_eq!(is_met(Row::Up8, 1.0, Some(1.0)), Some(true));
        assert_eq!(is_met(Row::Up8, 0.99, Some(1.0)), Some(false));
        assert_eq!(is_met(Row::Calls, 1.19, Some(1.0)), Some(false));
        assert_eq!(is_met(Row::Calls, 1.21, Some(1.0)), Some(true));
        assert_eq!(is_met(Row::Calls, 1.21, None), None);
    }

    #[test]
    fn memory_is_held_against_a_number() {
        let results = scene(Row::Carrier, Quantity::Server, &[9.0, 24_577.0, 99_999.0], None);
        assert_eq!(results.verdict(Row::Carrier, Quantity::Server), Some(("≤ 24576 B".to_owned(), Some(false))));
        assert_eq!(results.verdict(Row::Stream, Quantity::Agent), Some(("≤ 2048 B".to_owned(), None)));
    }

    #[test]
    fn a_herd_is_held_against_numbers_and_has_no_peers() {
        let table = scene(Row::Herd, Quantity::AllBack, &[10.0], None).table(&[Row::Herd], &[MEASURE]);
        let line = table.lines().find(|line| line.contains("all agents")).expect("a line").to_owned();
        assert_eq!(line, "| herd: all agents are back, s | 10.00 |  |  |  |  |  |  | ≤ 10.00 s | met |");
        let verdict = scene(Row::Herd, Quantity::Handshakes, &[211.0], None).verdict(Row::Herd, Quantity::Handshakes);
        assert_eq!(verdict, Some(("≤ 210 per second".to_owned(), Some(false))));
    }

    #[test]
    fn a_peer_that_could_not_be_built_is_named_in_every_line() {
        let results = scene(Row::Up1, Quantity::Rate, &[1.0, 3.0], None);
        let table = results.table(&[Row::Up1], &[MEASURE]);
        let line = table.lines().find(|line| line.contains("rate")).expect("a line").to_owned();
        assert_eq!(
            line,
            "| bulk, 1 stream up: rate, GiB/s | 2.00 (1.00–3.00) | not to be had |  |  |  |  |  | ≥ 1.0 | unknown |"
        );
    }
}
