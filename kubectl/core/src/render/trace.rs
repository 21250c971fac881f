//! The text of `trace`.

use crate::trace::Report;

use super::{INDENT, Look, checks, printable};

/// The report as text.
pub fn trace(report: &Report, look: Look) -> String {
    let title = format!("{} from pod {}", printable(&report.listener), printable(&report.from));
    let mut text = format!("{}\n", look.title(&title));
    // The checks are in one list, so that the details are aligned.
    let width = report.steps.iter().map(|step| step.check.name.len()).max().unwrap_or(0);
    for step in &report.steps {
        let mut check = step.check.clone();
        check.name = format!("{:<width$}", check.name);
        text.push_str(&checks(&[check], INDENT, look));
        text.push_str(&checks(&step.items, INDENT * 2, look));
    }
    let summary = match &report.stops {
        Some(step) => format!("stops at: {step}"),
        None if report.reached => "reaches a backend".to_owned(),
        None => "no step fails, but it is not known whether a backend is reached".to_owned(),
    };
    text.push_str(&format!("\n{summary}\n"));
    text
}
