//! The text of `status`.

use crate::{
    check::Outcome,
    rows::{ForwardRow, GatewayRow, ListenerRow},
    status::{Report, Verdict},
};

use super::{
    INDENT, Look, checks, hint, notes, printable,
    text::{table, wrapped},
};

const FORWARD: [&str; 7] = ["NAMESPACE", "NAME", "READY", "REASON", "PROXIES", "LISTENERS", "BACKENDS"];
const FORWARD_WIDE: [&str; 3] = ["TO", "PLACEMENT", "ADDRESS"];
const GATEWAY: [&str; 6] = ["NAMESPACE", "NAME", "READY", "REASON", "REPLICAS", "FORWARDS"];
const GATEWAY_WIDE: [&str; 1] = ["ADDRESS"];

/// The report as text.
pub fn status(report: &Report, look: Look) -> String {
    let mut text = format!("{}\n{}", look.title("Installation"), checks(&report.checks, INDENT, look));
    let gateways: Vec<Line> = report.gateways.iter().map(|row| gateway(row, look)).collect();
    text.push_str(&section("Gateways", &[&GATEWAY[..], &GATEWAY_WIDE], &gateways, look));
    let forwards: Vec<Line> = report.forwards.iter().map(|row| forward(row, look)).collect();
    text.push_str(&section("Forwards", &[&FORWARD[..], &FORWARD_WIDE], &forwards, look));
    text.push_str(&notes(&report.notes, look));
    text.push_str(&format!("\n{}\n", summary(report)));
    text
}

/// A row of a table, the message that explains it, and the next step.
struct Line {
    outcome: Outcome,
    cells: Vec<String>,
    message: String,
    hint: Option<String>,
}

/// A table with the messages and next steps of the rows that need attention below it.
fn section(title: &str, heads: &[&[&str]; 2], lines: &[Line], look: Look) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let head: Vec<&str> = heads.iter().take(if look.is_wide { 2 } else { 1 }).copied().flatten().copied().collect();
    let rows: Vec<(String, Vec<String>)> =
        lines.iter().map(|line| (look.mark(line.outcome), line.cells.clone())).collect();
    let mut text = format!("\n{}\n{}", look.title(title), table(&head, &rows, INDENT));
    for line in lines.iter().filter(|line| line.outcome != Outcome::Ok && !line.message.is_empty()) {
        let name = line.cells.iter().take(2).map(String::as_str).collect::<Vec<_>>().join("/");
        let message = format!("{name}: {}", printable(&line.message));
        let message = wrapped(&message, INDENT + 2, look.width);
        text.push_str(&format!("{}{} {message}\n", " ".repeat(INDENT), look.mark(line.outcome)));
        text.extend(line.hint.as_ref().map(|next| hint(next, INDENT + 2, look)));
    }
    text
}

fn gateway(row: &GatewayRow, look: Look) -> Line {
    let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![row.namespace.clone(), row.name.clone(), shown(&row.ready), shown(&row.reason)];
    cells.push(number(row.replicas.map(|replicas| replicas.to_string())));
    cells.push(number(row.forwards.map(|forwards| forwards.to_string())));
    if look.is_wide {
        cells.push(row.addresses.join(","));
    }
    line(row.outcome, &cells, &row.message, row.hint.as_deref())
}

fn forward(row: &ForwardRow, look: Look) -> Line {
    let proxies = row.proxies.map_or_else(|| "-".to_owned(), |proxies| format!("{}/{}", proxies.acked, proxies.total));
    let mut cells = vec![row.namespace.clone(), row.name.clone(), shown(&row.ready), shown(&row.reason), proxies];
    let ports: Vec<&str> = row.listeners.iter().map(|listener| listener.port.as_str()).collect();
    cells.extend([shown(&ports.join(",")), backends(&row.listeners)]);
    if look.is_wide {
        cells.extend([row.to.clone(), row.placement.clone(), row.addresses.join(",")]);
    }
    line(row.outcome, &cells, &row.message, row.hint.as_deref())
}

fn line(outcome: Outcome, cells: &[String], message: &str, hint: Option<&str>) -> Line {
    let cells = cells.iter().map(|cell| printable(cell)).collect();
    Line { outcome, cells, message: message.to_owned(), hint: hint.map(str::to_owned) }
}

fn shown(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Health of the backends: one word if all listeners agree, else one for each.
fn backends(listeners: &[ListenerRow]) -> String {
    let mut words: Vec<&str> = listeners.iter().map(|listener| listener.backends.unwrap_or("-")).collect();
    if words.windows(2).all(|pair| pair.first() == pair.last()) {
        words.truncate(1);
    }
    shown(&words.join(","))
}

/// The last line: what the report amounts to.
fn summary(report: &Report) -> String {
    let failed = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let checks = report.checks.iter().filter(|check| check.outcome == Outcome::Failed).count();
    let gateways = report.gateways.iter().filter(|row| row.outcome == Outcome::Failed).count();
    let forwards = report.forwards.iter().filter(|row| row.outcome == Outcome::Failed).count();
    let parts: Vec<String> = [
        failed(checks, "check has failed", "checks have failed"),
        failed(gateways, "gateway is not ready", "gateways are not ready"),
        failed(forwards, "forward is not ready", "forwards are not ready"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match report.verdict() {
        Verdict::Failed => parts.join(", "),
        Verdict::Incomplete => "nothing has failed, but not everything could be read".to_owned(),
        Verdict::Ok => {
            let warnings = report.checks.iter().filter(|check| check.outcome == Outcome::Warning).count();
            let rows =
                report.gateways.iter().map(|row| row.outcome).chain(report.forwards.iter().map(|row| row.outcome));
            let warnings = warnings + rows.filter(|outcome| *outcome == Outcome::Warning).count();
            failed(warnings, "warning", "warnings")
                .map_or_else(|| "all is well".to_owned(), |more| format!("no failure, {more}"))
        }
    }
}
