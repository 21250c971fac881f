//! The table that `portlane run` prints at the start.

use std::fmt::Write as _;

use operator_core::{Outcome, Translation};
use proxy_api::{Configuration, ListenerState, Offer, Report};

const HEAD: [&str; 4] = ["LISTENER", "ADDRESS", "BACKENDS", "STATE"];

/// One line per listener: name, address, backends and state.
pub(crate) fn table(translation: &Translation, configuration: &Configuration, report: &Report) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (key, verdict) in &translation.verdicts {
        for listener in &verdict.listeners {
            let name = format!("{key}/{}", listener.name);
            let id = name.parse().ok();
            let place = id.as_ref().and_then(|id| match configuration.listeners.get(id) {
                Some(Offer::Supported(listener)) => Some(listener.place()),
                _ => None,
            });
            let address = place.unwrap_or_else(|| "-".to_owned());
            let state = match &listener.outcome {
                Outcome::Published(_) => match id.and_then(|id| report.listeners.get(&id)).map(|item| item.state) {
                    Some(ListenerState::Bound) => "Bound".to_owned(),
                    Some(_) | None => "Failed".to_owned(),
                },
                Outcome::Allocated => "Allocated".to_owned(),
                Outcome::Suspended => "Suspended".to_owned(),
                Outcome::Refused { reason, .. } => format!("Refused ({})", reason.as_str()),
            };
            rows.push([name, address, listener.to.join(", "), state]);
        }
    }
    layout(&rows)
}

fn layout(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(60);
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [name, address, backends, state] in rows {
        let [a, b, c] = widths;
        let _ = writeln!(text, "{name:<a$}  {address:<b$}  {backends:<c$}  {state}");
    }
    text
}
