//! The table in Markdown, as docs/performance.md has it.

use std::collections::BTreeMap;

use crate::{
    rows::{Goal, Kind, PAIRS, Quantity, Row},
    spread::Spread,
    unit::Unit,
};

/// A measured cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) row: Row,
    pub(crate) quantity: Quantity,
    pub(crate) kind: Kind,
}

/// The values of a cell by the number of their round.
type Values = BTreeMap<usize, f64>;

/// Results, one value for each round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<Cell, Values>,
    /// Rounds without a value.
    failed: BTreeMap<(Row, Kind), usize>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, round: usize, value: f64) {
        self.values.entry(cell).or_default().insert(round, value);
    }

    /// A measurement failed, or was left out because others of this forwarder had failed.
    pub(crate) fn fail(&mut self, row: Row, kind: Kind) {
        *self.failed.entry((row, kind)).or_default() += 1;
    }

    fn spread(&self, cell: Cell) -> Option<Spread> {
        let values: Vec<f64> = self.values.get(&cell)?.values().copied().collect();
        Spread::of(&values)
    }

    /// What the first of a pair has as a multiple of the second, over the rounds that have both.
    fn ratio(&self, row: Row, quantity: Quantity, pair: (Kind, Kind)) -> Option<Spread> {
        let values = |kind| self.values.get(&Cell { row, quantity, kind });
        let (own, other) = values(pair.0).zip(values(pair.1))?;
        let both = own.iter().filter_map(|(round, own)| Some((own, other.get(round)?)));
        let ratios: Vec<f64> = both.filter(|(_, other)| **other > 0.0).map(|(own, other)| own / other).collect();
        Spread::of(&ratios)
    }

    /// The goal in words, and whether the median reaches it. `None`: that is not known.
    fn verdict(&self, row: Row, quantity: Quantity) -> Option<(String, Option<bool>)> {
        match row.goal(quantity)? {
            Goal::Most(most) => {
                let is_judged = |kind: &Kind| matches!(kind, Kind::Portlane(_)) && quantity.suits(row, *kind);
                let kind = Kind::ALL.into_iter().find(is_judged)?;
                let own = self.spread(Cell { row, quantity, kind });
                let unit = quantity.unit();
                Some((format!("≤ {} {}", unit.show(most), unit.name()), own.map(|own| own.median <= most)))
            }
            Goal::Times(factors) => {
                let suits = |kind| quantity.suits(row, kind);
                let goals = PAIRS.into_iter().zip(factors).filter(|((own, other), _)| suits(*own) && suits(*other));
                let (mut words, mut met) = (Vec::new(), Some(true));
                for (pair, factor) in goals {
                    words.push(format!("{factor:.0}"));
                    let is_met = self.ratio(row, quantity, pair).map(|ratio| ratio.median >= factor);
                    // One that is missed decides, before one that is not known.
                    met = if met == Some(false) { met } else { is_met.filter(|is_met| !is_met || met.is_some()) };
                }
                Some((format!("≥ {}", words.join(", ")), met))
            }
        }
    }

    /// The table of these rows. `absent`: what is not installed.
    pub(crate) fn table(&self, rows: &[Row], absent: &[Kind]) -> String {
        let names = Kind::ALL.map(Kind::name).join(" | ");
        let ratios = PAIRS.map(|(own, other)| format!("{} / {}", own.name(), other.name())).join(" | ");
        let columns = Kind::ALL.len() + PAIRS.len() + 2;
        let mut text = format!("| | {names} | {ratios} | goal | |\n|---|{}", "---|".repeat(columns));
        for row in rows {
            for quantity in row.quantities() {
                text += &self.line(*row, *quantity, absent);
            }
        }
        text
    }

    fn line(&self, row: Row, quantity: Quantity, absent: &[Kind]) -> String {
        let unit = quantity.unit();
        let mut line = format!("\n| {}: {}, {} |", row.title(), quantity.name(), unit.name());
        for kind in Kind::ALL {
            let shown = self.spread(Cell { row, quantity, kind }).map(|spread| spread.show(unit));
            let missing = if absent.contains(&kind) { "not installed" } else { "" };
            line += &format!(" {} |", shown.as_deref().unwrap_or(missing));
        }
        for pair in PAIRS {
            let ratio = self.ratio(row, quantity, pair).filter(|_| quantity.has_ratio());
            line += &format!(" {} |", ratio.map(|ratio| ratio.show(Unit::Ratio)).unwrap_or_default());
        }
        let (goal, met) = match self.verdict(row, quantity) {
            None => (String::new(), ""),
            Some((goal, None)) => (goal, "unknown"),
            Some((goal, Some(true))) => (goal, "met"),
            Some((goal, Some(false))) => (goal, "**missed**"),
        };
        line + &format!(" {goal} | {met} |")
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
    use crate::rows::Syncs;

    const OWN: Kind = Kind::Portlane(Syncs::Later);
    const RSYSLOG: Kind = Kind::Rsyslog(Syncs::Later);

    /// Results of delivery with these values by round.
    fn scene(values: &[(Kind, usize, f64)]) -> Results {
        let mut results = Results::default();
        for (kind, round, value) in values {
            let cell = Cell { row: Row::Tcp512, quantity: Quantity::Delivered, kind: *kind };
            results.add(cell, *round, *value);
        }
        results
    }

    fn is_met(results: &Results) -> Option<bool> {
        results.verdict(Row::Tcp512, Quantity::Delivered).expect("a goal").1
    }

    #[test]
    fn a_ratio_is_one_of_values_of_the_same_round() {
        let results = scene(&[(OWN, 0, 8.0), (OWN, 1, 6.0), (OWN, 2, 1.0), (RSYSLOG, 1, 2.0), (RSYSLOG, 0, 4.0)]);
        let ratio = results.ratio(Row::Tcp512, Quantity::Delivered, (OWN, RSYSLOG));
        assert_eq!(ratio, Some(Spread { least: 2.0, median: 2.5, most: 3.0 }));
    }

    #[test]
    fn a_goal_is_met_if_all_of_its_ratios_are() {
        let both = |rsyslog, syslog_ng| scene(&[(OWN, 0, 8.0), (RSYSLOG, 0, rsyslog), (Kind::SyslogNg, 0, syslog_ng)]);
        assert_eq!(is_met(&both(4.0, 4.0)), Some(true));
        assert_eq!(is_met(&both(5.0, 4.0)), Some(false));
        assert_eq!(is_met(&both(4.0, 5.0)), Some(false));
        assert_eq!(is_met(&scene(&[(OWN, 0, 8.0), (RSYSLOG, 0, 4.0)])), None);
        assert_eq!(is_met(&scene(&[(OWN, 0, 8.0), (RSYSLOG, 0, 5.0)])), Some(false));
    }

    #[test]
    fn delivery_of_a_synced_backlog_is_judged_by_those_that_sync_at_once() {
        let mut results = Results::default();
        let delivered =
            [(Kind::Portlane(Syncs::AtOnce), 6.0), (Kind::Rsyslog(Syncs::AtOnce), 2.0), (Kind::SyslogNg, 5.0)];
        for (kind, value) in delivered {
            results.add(Cell { row: Row::Synced, quantity: Quantity::Delivered, kind }, 0, value);
        }
        let lost = Cell { row: Row::Synced, quantity: Quantity::Lost, kind: Kind::Portlane(Syncs::AtOnce) };
        results.add(lost, 0, 0.0);
        assert_eq!(results.verdict(Row::Synced, Quantity::Delivered), Some(("≥ 2".to_owned(), Some(true))));
        assert_eq!(results.verdict(Row::Synced, Quantity::Lost).expect("a goal").1, Some(true));
    }

    #[test]
    fn what_is_not_installed_is_named_in_every_line() {
        let results = scene(&[(OWN, 0, 8.0), (RSYSLOG, 0, 2.0)]);
        let table = results.table(&[Row::Tcp512], &[Kind::SyslogNg]);
        let line = table.lines().find(|line| line.contains("delivered, per second")).expect("a line");
        let expected = "| lines of 512 B over TCP: delivered, per second | 8 | 2 | not installed |  |  | 4.00 |  |  | \
                        ≥ 2, 2 | unknown |";
        assert_eq!(line, expected);
    }
}
