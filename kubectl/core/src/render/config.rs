//! The text of `config`.

use crate::{check::Check, config::Report};

use super::{INDENT, Look, checks, printable};

/// The report as text.
pub fn config(report: &Report, look: Look) -> String {
    let mut text = format!("{}\n", look.title(&printable(&report.pod)));
    text.push_str(&checks(std::slice::from_ref(&report.proxy), INDENT, look));
    text.push_str(&section("Listeners", &report.listeners, look));
    text.push_str(&section("Endpoints", &report.endpoints, look));
    text
}

fn section(title: &str, items: &[Check], look: Look) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("\n{}\n{}", look.title(title), checks(items, INDENT, look))
}
