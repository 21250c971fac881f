//! The tables of the two pages: conditions with their reasons, and the health of each.

const CONDITIONS: &str = include_str!("../../../docs/conditions.md");
const GITOPS: &str = include_str!("../../../docs/gitops.md");

/// A row of `docs/conditions.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
}

impl Row {
    pub(crate) fn words(&self) -> String {
        format!("{}={} {}", self.type_, self.status, self.reason)
    }
}

/// A reason of `Ready` in `docs/gitops.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) health: String,
    pub(crate) kstatus: String,
}

/// The conditions of a kind.
pub(crate) fn rows(kind: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut current = String::new();
    for cells in table(CONDITIONS, &format!("## {kind}")) {
        let [condition, reason, ..] = &cells[..] else { panic!("too few cells: {cells:?}") };
        if !condition.is_empty() {
            // Behind a space stands for whom the condition is.
            condition.split(' ').next().unwrap_or_default().clone_into(&mut current);
        }
        let Some((type_, status)) = current.split_once('=') else { continue };
        if reason.starts_with(|first: char| first.is_ascii_uppercase()) {
            rows.push(Row { type_: type_.to_owned(), status: status.to_owned(), reason: reason.clone() });
        }
    }
    rows
}

/// The health of each reason of a kind.
pub(crate) fn expected(kind: &str) -> Vec<Expected> {
    let mut all = Vec::new();
    for cells in table(GITOPS, &format!("### Of a {kind}")) {
        let [status, reasons, health, kstatus] = &cells[..] else { panic!("not four cells: {cells:?}") };
        all.extend(reasons.split(", ").map(|reason| Expected {
            status: status.clone(),
            reason: reason.to_owned(),
            health: health.clone(),
            kstatus: kstatus.clone(),
        }));
    }
    assert!(!all.is_empty(), "docs/gitops.md has no health of a {kind}");
    all
}

/// The rows of the first table below a heading, without its head.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let below = page.lines().skip_while(|line| *line != heading).skip(1);
    let lines = below.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    let cells = |line: &str| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}
