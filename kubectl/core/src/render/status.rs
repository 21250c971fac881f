//! The text of `status`.

use std::collections::BTreeSet;

use crate::{
    check::Outcome,
    rows::{AgentRow, ForwardRow, GatewayRow, ListenerRow},
    status::{Report, Verdict},
};

use super::{
    INDENT, Look, checks, hint, notes, printable,
    text::{Column, fitted, wrapped},
};

/// The columns of forwards. READY is left out early, because the mark of a row shows most of it.
const FORWARD: [Column<'_>; 8] = [
    ("NAMESPACE", 1),
    ("NAME", 0),
    ("READY", 7),
    ("REASON", 2),
    ("PROXIES", 3),
    ("LISTENERS", 6),
    ("BACKENDS", 5),
    ("SESSIONS", 4),
];
const FORWARD_WIDE: [Column<'_>; 3] = [("TO", 10), ("PLACEMENT", 11), ("ADDRESS", 9)];
const GATEWAY: [Column<'_>; 6] =
    [("NAMESPACE", 1), ("NAME", 0), ("READY", 7), ("REASON", 2), ("REPLICAS", 3), ("FORWARDS", 4)];
const GATEWAY_WIDE: [Column<'_>; 1] = [("ADDRESS", 9)];
const AGENT: [Column<'_>; 7] =
    [("NAMESPACE", 1), ("NAME", 0), ("READY", 7), ("REASON", 2), ("INSTANCES", 3), ("CARRIERS", 4), ("GATEWAY", 5)];
const AGENT_WIDE: [Column<'_>; 1] = [("VERSIONS", 9)];
/// Rank of the namespace where all rows have the same.
const SAME: u8 = 8;

/// The report as text.
pub fn status(report: &Report, look: Look) -> String {
    titled("Installation", report, look)
}

/// The report on a process on this machine as text.
pub fn local_status(report: &Report, look: Look) -> String {
    titled("This machine", report, look)
}

fn titled(title: &str, report: &Report, look: Look) -> String {
    let mut text = format!("{}\n{}", look.title(title), checks(&report.checks, INDENT, look));
    let gateways: Vec<Line> = report.gateways.iter().map(|row| gateway(row, look)).collect();
    text.push_str(&section("Gateways", &[&GATEWAY[..], &GATEWAY_WIDE], &gateways, look));
    let agents: Vec<Line> = report.agents.iter().map(|row| agent(row, look)).collect();
    text.push_str(&section("Agents", &[&AGENT[..], &AGENT_WIDE], &agents, look));
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
fn section(title: &str, heads: &[&[Column<'_>]; 2], lines: &[Line], look: Look) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let wide = if look.is_wide { 2 } else { 1 };
    let mut head: Vec<Column<'_>> = heads.iter().take(wide).copied().flatten().copied().collect();
    let namespaces: BTreeSet<&str> = lines.iter().filter_map(|line| line.cells.first()).map(String::as_str).collect();
    if let Some((_, rank)) = head.first_mut().filter(|_| namespaces.len() == 1) {
        *rank = SAME;
    }
    let rows: Vec<(String, Vec<String>)> =
        lines.iter().map(|line| (look.mark(line.outcome), line.cells.clone())).collect();
    let mut text = format!("\n{}\n{}", look.title(title), fitted(&head, &rows, INDENT, look.width));
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

fn agent(row: &AgentRow, look: Look) -> Line {
    let mut cells = vec![row.namespace.clone(), row.name.clone(), shown(&row.ready), shown(&row.reason)];
    let carriers: Vec<&str> = row.instances.iter().map(|instance| instance.carriers.as_str()).collect();
    cells.extend([row.instances.len().to_string(), shown(&carriers.join(",")), shown(&row.gateway)]);
    if look.is_wide {
        let versions = row.instances.iter().map(|instance| format!("{} {}", instance.name, instance.version));
        cells.push(versions.collect::<Vec<_>>().join(", "));
    }
    line(row.outcome, &cells, &row.message, row.hint.as_deref())
}

fn forward(row: &ForwardRow, look: Look) -> Line {
    let proxies = row.proxies.map_or_else(|| "-".to_owned(), |proxies| format!("{}/{}", proxies.acked, proxies.total));
    let mut cells = vec![row.namespace.clone(), row.name.clone(), shown(&row.ready), shown(&row.reason), proxies];
    let ports: Vec<&str> = row.listeners.iter().map(|listener| listener.port.as_str()).collect();
    let sessions = row.sessions.map_or_else(|| "-".to_owned(), |sessions| sessions.to_string());
    cells.extend([shown(&ports.join(",")), backends(&row.listeners), sessions]);
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

/// The last line: the overall result.
fn summary(report: &Report) -> String {
    let failed = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let checks = report.checks.iter().filter(|check| check.outcome == Outcome::Failed).count();
    let gateways = report.gateways.iter().filter(|row| row.outcome == Outcome::Failed).count();
    let agents = report.agents.iter().filter(|row| row.outcome == Outcome::Failed).count();
    let forwards = report.forwards.iter().filter(|row| row.outcome == Outcome::Failed).count();
    let parts: Vec<String> = [
        failed(checks, "check has failed", "checks have failed"),
        failed(gateways, "gateway is not ready", "gateways are not ready"),
        failed(agents, "agent is not ready", "agents are not ready"),
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
            let warnings = warnings + report.rows().filter(|outcome| *outcome == Outcome::Warning).count();
            failed(warnings, "warning", "warnings")
                .map_or_else(|| "all is well".to_owned(), |more| format!("no failure, {more}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::Check, rows};

    fn row(namespace: &str) -> ForwardRow {
        let text = format!(
            "{{apiVersion: portlane.dev/v1alpha1, kind: PortForward, metadata: {{name: db, namespace: {namespace}}}, \
             spec: {{placement: {{gateway: {{name: edge}}}}, listeners: []}}}}"
        );
        rows::forward(&serde_yaml::from_str(&text).expect("a forward"))
    }

    #[test]
    fn a_narrow_table_names_the_namespace_before_the_reason_only_if_there_are_several() {
        let head = |other: &str| {
            let (program, forwards) = (String::new(), vec![row("shop"), row(other)]);
            let (checks, gateways, agents) = (Vec::new(), Vec::new(), Vec::new());
            let report = Report { program, checks, gateways, agents, forwards, notes: Vec::new() };
            let text = status(&report, Look { width: Some(22), ..Look::default() });
            text.lines().skip_while(|line| *line != "Forwards").nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(head("net"), "    NAMESPACE  NAME");
        assert_eq!(head("shop"), "    NAME  REASON");
    }

    #[test]
    fn a_summary_counts_the_warnings_of_checks_and_of_rows_together() {
        let (program, checks) = (String::new(), vec![Check::warning("version", "the operator is older")]);
        let (gateways, agents, notes) = (Vec::new(), Vec::new(), Vec::new());
        let report = Report { program, checks, gateways, agents, forwards: vec![row("shop")], notes };
        let texts = [status, local_status].map(|render| render(&report, Look::default()));
        assert!(texts.iter().all(|text| text.ends_with("\nno failure, 2 warnings\n")), "{texts:?}");
        assert!(texts[0].starts_with("Installation\n") && texts[1].starts_with("This machine\n"), "{texts:?}");
    }
}
