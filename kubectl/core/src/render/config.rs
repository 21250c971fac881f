//! The text of `config`.

use serde_json::Value;

use crate::{check::Check, config::Report};

use super::{INDENT, Look, checks, printable};

/// The report as text. A wide report has the addresses of endpoints.
pub fn config(report: &Report, look: Look) -> String {
    let mut text = format!("{}\n", look.title(&printable(&report.pod)));
    text.push_str(&checks(std::slice::from_ref(&report.proxy), INDENT, look));
    text.push_str(&section("Listeners", &report.listeners, look));
    text.push_str(&section("Endpoints", &endpoints(report, look), look));
    text
}

fn endpoints(report: &Report, look: Look) -> Vec<Check> {
    // Both lists are in the order of the names.
    let sets = report.endpoints.iter().zip(report.config.endpoints.values());
    let check = |(check, set): (&Check, &Value)| {
        let all = set["addresses"].as_array().into_iter().flatten();
        // Operators may write an address alone, or an object with further fields.
        let addresses: Vec<&str> = all.filter_map(|it| it.as_str().or_else(|| it["address"].as_str())).collect();
        let mut check = check.clone();
        if look.is_wide && !addresses.is_empty() {
            check.detail = format!("{}: {}", check.detail, addresses.join(", "));
        }
        check
    };
    sets.map(check).collect()
}

fn section(title: &str, items: &[Check], look: Look) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("\n{}\n{}", look.title(title), checks(items, INDENT, look))
}
