//! The YAML of the pages: manifests that are valid together with the others of their section, parts of manifests, and
//! values of the chart.

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{names::GATEWAY_LABEL, translate};
use proxy_api::SIDECAR_TUNNEL_PORT;
use serde_json::Value;

use super::page::pages;
use crate::{
    admission::Admission,
    input::Laptop,
    manifest::{FileChange, parse},
    store::Store,
    verdicts, world,
};

/// The schema of the chart's values.
const VALUES: &str = include_str!("../../../charts/portlane/values.schema.json");

const FORWARD: &str = "apiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {name: part}\n";
const GATEWAY: &str = "apiVersion: portlane.dev/v1alpha1\nkind: ForwardGateway\nmetadata: {name: part}\n";
const LISTENER: &str = "  listeners:
  - name: syslog
    protocol: TCP
    port: 5514
    backends: [{address: {host: logs.example.com, port: 2514}}]
";

/// What a block is that is no manifest by itself.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The spec of a `PortForward`, without listeners.
    Forward,
    /// Fields of a listener of `portlane run`.
    Listener,
    /// The spec of a `ForwardGateway`.
    Gateway,
    /// Fields of such a spec.
    OfGateway,
    /// Values of the chart.
    Values,
    /// A file of another program, or of the agent, whose tests read it.
    Foreign,
}

/// The blocks that are no manifests: the page, the beginning of the first line, and what the block is.
const PARTS: [(&str, &str, Part); 14] = [
    ("docs/agent.md", "# agent.yaml", Part::Foreign),
    ("docs/agent.md", "# compose.yaml", Part::Foreign),
    ("docs/autoscaling.md", "spec:", Part::Forward),
    ("docs/autoscaling.md", "rules:", Part::Foreign),
    ("docs/durable.md", "    durable:", Part::Listener),
    ("docs/install.md", "gateways:", Part::Values),
    ("docs/install.md", "global:", Part::Values),
    ("docs/install.md", "openshift:", Part::Values),
    ("docs/install.md", "servingCertificate:", Part::Values),
    ("docs/observability.md", "monitoring:", Part::Values),
    ("docs/observability.md", "scrape_configs:", Part::Foreign),
    ("docs/sharing.md", "allowedForwards:", Part::OfGateway),
    ("docs/tasks/README.md", "spec:", Part::Gateway),
    ("docs/upgrade.md", "spec:", Part::Gateway),
];

/// The name and the text of a file.
type File = (String, String);

impl Part {
    /// What is wrong with a block.
    fn problems(self, admission: &Admission, (name, text): File) -> Vec<String> {
        let whole = match self {
            Self::Forward => format!("{FORWARD}{text}{LISTENER}"),
            Self::Listener => format!("{FORWARD}spec:\n  placement: {{sidecar: {{selector: {{}}}}}}\n{LISTENER}{text}"),
            Self::Gateway => format!("{GATEWAY}{text}"),
            Self::OfGateway => format!("{GATEWAY}spec:\n  {}\n", text.trim_end().replace('\n', "\n  ")),
            Self::Values => {
                let chart: Value = serde_json::from_str(VALUES).expect("JSON");
                let values: Value = serde_yaml::from_str(&text).expect("YAML");
                return unknown_values(&chart, &chart, &values, &name);
            }
            Self::Foreign => return Vec::new(),
        };
        problems(admission, &[(name, whole)], matches!(self, Self::Listener))
    }
}

/// What `portlane validate` finds wrong with files, or `portlane run` on a laptop.
fn problems(admission: &Admission, files: &[File], is_laptop: bool) -> Vec<String> {
    let mut store = Store::default();
    for (name, text) in files {
        let change = parse(name, text).map_or_else(FileChange::Unreadable, FileChange::Documents);
        store.take(admission, name, change, "default");
    }
    let mut objects = store.objects(&[], &BTreeSet::new());
    let found = std::mem::take(&mut objects.world);
    let laptop = Laptop { resolve: Vec::new(), port_offset: 0, map: Vec::new() };
    objects.world = if is_laptop { world::laptop(found, &laptop) } else { world::any_cluster(found) };
    let (refused, _) = verdicts::problems(&objects, &translate(&objects.world));
    refused.iter().chain(&objects.problems).map(ToString::to_string).collect()
}

/// The paths of values that the chart does not have.
fn unknown_values(chart: &Value, schema: &Value, values: &Value, path: &str) -> Vec<String> {
    let named = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/"));
    let schema = named.map_or(schema, |name| &chart["definitions"][name]);
    let (Some(known), Some(given)) = (schema["properties"].as_object(), values.as_object()) else { return Vec::new() };
    let unknown = given.iter().flat_map(|(key, value)| {
        let path = format!("{path}: {key}");
        known.get(key).map_or_else(|| vec![path.clone()], |inner| unknown_values(chart, inner, value, &path))
    });
    unknown.collect()
}

#[test]
fn every_block_of_yaml_is_valid() {
    let admission = Admission::new().expect("rules");
    let (mut wrong, mut used, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for page in pages() {
        let mut sections: BTreeMap<&str, Vec<File>> = BTreeMap::new();
        for block in page.blocks().iter().filter(|block| block.language == "yaml") {
            let file = (format!("{}:{}", page.name, block.line), block.lines.join("\n") + "\n");
            let begins = |first: &str| block.lines.first().is_some_and(|line| line.starts_with(first));
            let part = PARTS.iter().position(|(name, first, _)| *name == page.name && begins(first));
            if let Some(at) = part {
                used.insert(at);
                wrong.extend(PARTS[at].2.problems(&admission, file));
            } else {
                sections.entry(block.section).or_default().push(file);
            }
            count += 1;
        }
        wrong.extend(sections.values().flat_map(|files| problems(&admission, files, false)));
    }
    assert!(count > 40, "only {count} blocks are found");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let rows: BTreeSet<usize> = (0..PARTS.len()).collect();
    assert_eq!(used, rows, "a row has no block");
}

#[test]
fn what_is_wrong_with_a_block_is_found() {
    let admission = Admission::new().expect("rules");
    let found = |part: Part, text: &str| part.problems(&admission, ("p.md:1".to_owned(), text.to_owned())).join("\n");
    assert_eq!(found(Part::OfGateway, "allowedForwards:\n  namespaces: {from: All}\n"), "");
    for (part, text, expected) in [
        (Part::Forward, "spec:\n  placement: {sidecar: {selectr: {}}}\n", "selectr"),
        (Part::Listener, "    durabel: {}\n", "durabel"),
        (Part::Gateway, "spec: {replica: 1}\n", "replica"),
        (Part::OfGateway, "service: {typ: LoadBalancer}\n", "typ"),
        (Part::Values, "gateways: {podTemplate: {priority: edge}}\n", "p.md:1: gateways: podTemplate: priority"),
    ] {
        assert!(found(part, text).contains(expected), "{part:?}: {}", found(part, text));
    }
    let file = |text: &str| ("p.md:1".to_owned(), text.to_owned());
    assert!(!problems(&admission, &[file("no: manifest\n")], false).is_empty());
    let both = [file(&format!("{GATEWAY}spec: {{}}\n")), ("p.md:2".to_owned(), format!("{GATEWAY}spec: {{}}\n"))];
    assert!(problems(&admission, &both, false).join("").contains("is also defined at p.md:1"));
}

#[test]
fn a_network_policy_lets_gateways_reach_the_port_of_sidecars() {
    let policy = "kind: NetworkPolicy";
    let pages = pages();
    let page = pages.iter().find(|page| page.name == "docs/tunnels.md").expect("the page");
    let block = page.blocks().into_iter().find(|block| block.lines.contains(&policy)).expect("the policy");
    let policy: Value = serde_yaml::from_str(&block.lines.join("\n")).expect("YAML");
    let rule = &policy["spec"]["ingress"][0];
    assert_eq!(rule["ports"][0]["port"].as_u64(), Some(SIDECAR_TUNNEL_PORT.into()));
    assert!(rule["from"][0]["podSelector"]["matchLabels"][GATEWAY_LABEL].is_string());
}
