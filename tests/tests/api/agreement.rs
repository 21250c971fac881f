//! `portlane validate` and the API server agree: verdict for verdict, field for field.
//!
//! In addition, the server accepts every value on a bound of the CRDs and refuses every value beyond a bound, at its
//! field.
//!
//! Rows are handwritten (`agreement/rows.txt`, and `texts` where bytes matter) and generated from the CRDs (`generate`). A handwritten row goes through
//! `kubectl apply`, whose reading of YAML counts too; a generated row is a request of this process. Where the validator
//! refuses more than the server, the row gives the reason.

mod generate;
mod rows;
mod texts;
mod verdict;

use std::{fmt::Write, fs, sync::LazyLock, thread};

use harness::ControlPlane;

use rows::{Bound, Row};
use tempfile::TempDir;
use verdict::Verdict;

on_both!(the_offline_validator_and_the_api_server_agree);

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows = rows::handwritten();
    rows.extend(texts::rows());
    rows.extend(generate::rows());
    rows
});

/// The validator's verdicts, which are the same for every server.
static OFFLINE: LazyLock<Vec<Verdict>> = LazyLock::new(|| verdict::of_validator(&ROWS));

/// A folder with one file for each of these rows, named after the row's place in the table.
fn written(rows: &[(usize, &Row)]) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for (number, row) in rows {
        let bytes = row.bytes.as_deref().unwrap_or(row.manifest.as_bytes());
        fs::write(folder.path().join(file(*number)), bytes).expect("write");
    }
    folder
}

fn the_offline_validator_and_the_api_server_agree(server: &ControlPlane) {
    let rows = &*ROWS;
    let online = thread::scope(|scope| {
        // Computes while the other waits for answers.
        scope.spawn(|| LazyLock::force(&OFFLINE).len());
        verdict::of_server(server, rows)
    });
    let mut wrong = String::new();
    for ((row, online), offline) in rows.iter().zip(&online).zip(&*OFFLINE) {
        if let Some(difference) = difference(row, online, offline) {
            let _ = write!(wrong, "\n== {}: {difference}\n{}\n", row.name, row.manifest);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let accepted = online.iter().filter(|verdict| verdict.accepted).count();
    let refused = rows.len() - accepted;
    assert!(accepted > 100 && refused > 300, "both verdicts must be common: {accepted} accepted, {refused} refused");
}

fn file(number: usize) -> String {
    format!("{number:04}.yaml")
}

/// How a row's two verdicts differ from what the row allows.
fn difference(row: &Row, online: &Verdict, offline: &Verdict) -> Option<String> {
    let both = format!("\nthe API server:\n{online}\nportlane validate:\n{offline}");
    if let Some(reason) = &row.stricter {
        let as_listed = online.accepted && !offline.accepted;
        return (!as_listed).then(|| format!("listed as refused offline only ({reason}), but:{both}"));
    }
    if online.accepted != offline.accepted {
        return Some(both);
    }
    if let Some(Bound { field, beyond }) = &row.bound
        && online.fields.contains(field) != *beyond
    {
        let should = if *beyond { "should be refused" } else { "should be accepted" };
        return Some(format!("{field} {should}:{both}"));
    }
    let same = online.fields == offline.fields;
    match &row.other_fields {
        Some(reason) => same.then(|| format!("listed as naming other fields ({reason}), but:{both}")),
        None => (!same).then_some(both),
    }
}
