//! Tables in Markdown, as docs/performance.md has them.

use std::collections::BTreeMap;

use crate::{
    profile::Shares,
    rows::{Goal, Quantity, Row, Section},
    spread::Spread,
    subject::Kind,
    syscalls::Calls,
};

/// Calls with a smaller share of the CPU time are not shown by name.
const LITTLE: f64 = 0.02;
/// Calls that are fewer for each operation are not shown by name.
const FEW: f64 = 0.005;

/// What the table of models leaves out, so that it has a column for all that tells one from another.
const LEFT_OUT: [Quantity; 4] = [Quantity::Sum, Quantity::Busy, Quantity::P50, Quantity::Left];

/// A measured cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) section: Section,
    pub(crate) row: Row,
    pub(crate) kind: Kind,
    pub(crate) quantity: Quantity,
}

/// Results, one value for each round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<Cell, Vec<f64>>,
    /// Rounds without a value.
    failed: BTreeMap<(Section, Row, Kind), usize>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: Cell, value: f64) {
        self.values.entry(cell).or_default().push(value);
    }

    /// A measurement failed, or was left out because others of this forwarder had failed.
    pub(crate) fn fail(&mut self, section: Section, row: Row, kind: Kind) {
        *self.failed.entry((section, row, kind)).or_default() += 1;
    }

    /// Prints which medians are of fewer rounds, or missing.
    pub(crate) fn print_failures(&self, rounds: usize) {
        for ((section, row, kind), failed) in &self.failed {
            let (name, title, table) = (kind.name(), row.title(), section.title());
            println!("\n{name} failed in {failed} of {rounds} rounds at \"{title}\" (table \"{table}\").");
        }
    }

    fn spread(&self, cell: Cell) -> Option<Spread> {
        Spread::of(self.values.get(&cell)?)
    }

    fn median(&self, cell: Cell) -> Option<f64> {
        self.spread(cell).map(|spread| spread.median)
    }

    /// The best of the forwarders that are not Portlane.
    fn best_of_others(&self, cell: Cell, kinds: &[Kind]) -> Option<(Kind, f64)> {
        let others = kinds.iter().filter(|kind| !kind.is_portlane() && **kind != Kind::Direct);
        let medians = others.filter_map(|kind| Some((*kind, self.median(Cell { kind: *kind, ..cell })?)));
        let better = |a: f64, b: f64| if cell.quantity.is_better_if_more() { a > b } else { a < b };
        medians.reduce(|best, other| if better(other.1, best.1) { other } else { best })
    }

    /// The goal in words, and whether this cell reaches it.
    fn verdict(&self, cell: Cell, kinds: &[Kind]) -> Option<(String, Option<bool>)> {
        let (spread, goal) = (self.spread(cell)?, cell.row.goal(cell.quantity)?);
        let own = if cell.quantity.is_failure() { spread.most } else { spread.median };
        let unit = cell.row.unit(cell.quantity);
        let against_best = |is_met: fn(f64, f64) -> bool, factor: f64| {
            self.best_of_others(cell, kinds).map(|(_, best)| is_met(own, best * factor))
        };
        Some(match goal {
            Goal::AtLeast(factor) => (format!("≥ {factor}"), against_best(|own, goal| own >= goal, factor)),
            Goal::AtMost(factor) => (format!("≤ {factor}"), against_best(|own, goal| own <= goal, factor)),
            Goal::Most(most) => (format!("≤ {}", unit.show(most)), Some(own <= most)),
            Goal::Of(row, factor) => {
                let other = self.median(Cell { row, ..cell });
                (format!("≤ {factor} of {}", row.title()), other.map(|other| own <= other * factor))
            }
            Goal::Above(quantity, most) => {
                let other = self.median(Cell { quantity, ..cell });
                let words = format!("≤ {} more than {}", unit.show(most), quantity.name());
                (words, other.map(|other| own <= other + most))
            }
        })
    }

    /// Whether anything of a section was measured.
    fn has(&self, section: Section) -> bool {
        self.values.keys().any(|cell| cell.section == section)
    }

    /// Prints the table of a section, if anything of it was measured.
    pub(crate) fn print(&self, section: Section, kinds: &[Kind]) {
        if !self.has(section) {
            return;
        }
        if section == Section::Models {
            println!("\n### {}\n\n{}", section.title(), self.by_forwarder(section, kinds).join("\n"));
            return;
        }
        let names: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
        let further = if section == Section::Compared { " best of the others | ratio | goal | |" } else { "" };
        let columns = names.len() + if section == Section::Compared { 4 } else { 0 };
        println!("\n### {}\n\n| | {} |{further}", section.title(), names.join(" | "));
        println!("|---|{}", "---|".repeat(columns));
        for row in section.rows() {
            for quantity in row.quantities() {
                self.print_line(section, *row, *quantity, kinds);
            }
        }
    }

    /// The lines of a table with a line for each forwarder, and what tells one from another in columns.
    fn by_forwarder(&self, section: Section, kinds: &[Kind]) -> Vec<String> {
        let all = section.rows().iter().flat_map(|row| row.quantities().iter().map(move |quantity| (*row, *quantity)));
        let columns: Vec<(Row, Quantity)> = all.filter(|(_, quantity)| !LEFT_OUT.contains(quantity)).collect();
        let title = |&(row, quantity): &(Row, Quantity)| {
            format!("{}: {}, {}", row.title(), quantity.name(), row.unit(quantity).name())
        };
        let titles: Vec<String> = columns.iter().map(title).collect();
        let mut lines = vec![format!("| | {} |", titles.join(" | ")), format!("|---|{}", "---|".repeat(columns.len()))];
        for kind in kinds.iter().copied() {
            let show = |&(row, quantity): &(Row, Quantity)| {
                let spread = self.spread(Cell { section, row, kind, quantity });
                spread.map_or_else(String::new, |spread| spread.show(row.unit(quantity)))
            };
            let values: Vec<String> = columns.iter().map(show).collect();
            lines.push(format!("| {} | {} |", kind.name(), values.join(" | ")));
        }
        lines
    }

    fn print_line(&self, section: Section, row: Row, quantity: Quantity, kinds: &[Kind]) {
        let cell = |kind: Kind| Cell { section, row, kind, quantity };
        if kinds.iter().all(|kind| self.spread(cell(*kind)).is_none()) {
            return;
        }
        let unit = row.unit(quantity);
        let shown = kinds.iter().map(|kind| {
            let Some(spread) = self.spread(cell(*kind)) else { return String::new() };
            let values = spread.show(unit);
            match self.verdict(cell(*kind), kinds) {
                Some((goal, Some(false))) if section.has_goals_in_cells() => {
                    format!("{values}, goal {goal}: **missed**")
                }
                Some((goal, Some(true))) if section.has_goals_in_cells() => format!("{values}, goal {goal}: met"),
                _ => values,
            }
        });
        let mut line = format!("| {}: {}, {} |", row.title(), quantity.name(), unit.name());
        shown.for_each(|text| line += &format!(" {text} |"));
        if section == Section::Compared {
            line += &self.beside_the_best(cell(Kind::PLAIN), kinds);
        }
        println!("{line}");
    }

    /// The last columns: the best of the others, Portlane's ratio to it, the goal, and whether it is met.
    fn beside_the_best(&self, cell: Cell, kinds: &[Kind]) -> String {
        let best = self.best_of_others(cell, kinds);
        let ratio = self.median(cell).zip(best).filter(|(_, (_, best))| *best > 0.0);
        let ratio = ratio.map_or_else(String::new, |(own, (_, best))| format!("{:.2}", own / best));
        let best = best.map_or_else(String::new, |(kind, _)| kind.name());
        let (goal, met) = match self.verdict(cell, kinds) {
            None => (String::new(), ""),
            Some((goal, None)) => (goal, "unknown"),
            Some((goal, Some(true))) => (goal, "met"),
            Some((goal, Some(false))) => (goal, "**missed**"),
        };
        format!(" {best} | {ratio} | {goal} | {met} |")
    }
}

/// Prints the system calls of each forwarder for each operation.
pub(crate) fn print_calls(found: &BTreeMap<(Row, Kind), Calls>) {
    println!("\n### System calls of the forwarder\n");
    println!("For each connection, round trip or datagram; in rows of bulk for each MiB.\n");
    println!("| | forwarder | calls | by name |\n|---|---|---|---|");
    for ((row, kind), calls) in found {
        let mut by_name: Vec<(&String, f64)> = calls.iter().map(|(name, calls)| (name, *calls)).collect();
        by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown = by_name.iter().filter(|(_, calls)| *calls >= FEW).map(|(name, calls)| format!("{name} {calls:.2}"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        let all: f64 = calls.values().sum();
        println!("| {} | {} | {all:.2} | {shown} |", row.title(), kind.name());
    }
}

/// Prints where the CPU time of each forwarder went.
pub(crate) fn print_profiles(found: &BTreeMap<(Row, Kind), Shares>) {
    println!("\n### Where the CPU time of the forwarder goes\n");
    println!(
        "| | forwarder | in the program, % | packets that arrived, % | by system call, % |\n|---|---|---|---|---|"
    );
    for ((row, kind), shares) in found {
        let mut by_call: Vec<(&String, f64)> = shares.calls.iter().map(|(name, share)| (name, *share)).collect();
        by_call.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown = by_call.iter().filter(|(_, share)| *share >= LITTLE);
        let shown = shown.map(|(name, share)| format!("{name} {:.0}", share * 100.0)).collect::<Vec<_>>().join(", ");
        let (program, packets) = (shares.program * 100.0, shares.packets * 100.0);
        println!("| {} | {} | {program:.0} | {packets:.0} | {shown} |", row.title(), kind.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: [Kind; 3] = [Kind::HaProxy, Kind::Nginx, Kind::Direct];

    /// Portlane's cell, with these values for it, `HAProxy`, nginx and no forwarder.
    fn scene(quantity: Quantity, own: &[f64], others: [f64; 3]) -> (Results, Cell, Vec<Kind>) {
        let cell = Cell { section: Section::Compared, row: Row::Bulk8, kind: Kind::PLAIN, quantity };
        let mut results = Results::default();
        for value in own {
            results.add(cell, *value);
        }
        for (kind, value) in OTHERS.into_iter().zip(others) {
            results.add(Cell { kind, ..cell }, value);
        }
        let kinds = [Kind::PLAIN].into_iter().chain(OTHERS).collect();
        (results, cell, kinds)
    }

    #[test]
    fn models_have_a_line_each_with_their_values_below_the_titles() {
        let (section, row, quantity) = (Section::Models, Row::Idle, Quantity::Files);
        let mut results = Results::default();
        for value in [5.0, 7.0, 6.0] {
            results.add(Cell { section, row, kind: Kind::Nginx, quantity }, value);
        }
        let lines = results.by_forwarder(section, &[Kind::HaProxy, Kind::Nginx]);
        let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split('|').map(str::trim).collect()).collect();
        let column = cells[0].iter().position(|title| *title == "idle connection: files, number").expect("a title");
        assert_eq!([cells[2][1], cells[3][1], cells[2][column], cells[3][column]], ["HAProxy", "nginx", "", "6 (5–7)"]);
        assert!(cells.iter().all(|line| line.len() == cells[0].len()), "{lines:#?}");
    }

    #[test]
    fn the_median_is_that_of_all_rounds_even_or_odd() {
        let median = |own: &[f64]| {
            let (results, cell, _) = scene(Quantity::Rate, own, [1.0; 3]);
            results.median(cell)
        };
        assert_eq!((median(&[9.0, 1.0, 2.0]), median(&[4.0, 2.0])), (Some(2.0), Some(3.0)));
    }

    #[test]
    fn one_round_with_a_loss_misses_the_goal_of_none() {
        let (mut results, kinds) = (Results::default(), [Kind::PLAIN]);
        let (row, quantity) = (Row::Udp1000, Quantity::Lost);
        let cell = Cell { section: Section::Compared, row, kind: Kind::PLAIN, quantity };
        let mut is_met = |value: f64| {
            results.add(cell, value);
            results.verdict(cell, &kinds).and_then(|(_, is_met)| is_met)
        };
        assert_eq!([is_met(0.0), is_met(0.0), is_met(0.001)], [Some(true), Some(true), Some(false)]);
    }

    #[test]
    fn trains_are_measured_by_datagrams_that_nothing_has_joined() {
        let (section, kind, quantity) = (Section::Compared, Kind::PLAIN, Quantity::Cpu);
        let is_met = |trains| {
            let mut results = Results::default();
            for (row, value) in [(Row::Singles, 1.0), (Row::Bursts, 0.5), (Row::Trains, trains)] {
                results.add(Cell { section, row, kind, quantity }, value);
            }
            let verdict = results.verdict(Cell { section, row: Row::Trains, kind, quantity }, &[kind]);
            verdict.and_then(|(_, is_met)| is_met)
        };
        assert_eq!([is_met(0.29), is_met(0.31)], [Some(true), Some(false)]);
    }

    #[test]
    fn a_goal_is_measured_by_the_best_of_the_others_and_never_by_no_forwarder() {
        // Eight connections up: at least 1.08 times the rate, and at most 0.9 times the CPU.
        let is_met = |quantity, own, others| {
            let (results, cell, kinds) = scene(quantity, &[own], others);
            results.verdict(cell, &kinds).and_then(|(_, is_met)| is_met)
        };
        assert_eq!(is_met(Quantity::Rate, 1.09, [0.5, 1.0, 9.0]), Some(true));
        assert_eq!(is_met(Quantity::Rate, 1.07, [1.0, 0.5, 9.0]), Some(false));
        assert_eq!(is_met(Quantity::Cpu, 0.89, [2.0, 1.0, 0.1]), Some(true));
        assert_eq!(is_met(Quantity::Cpu, 0.91, [1.0, 2.0, 0.1]), Some(false));
    }
}
