//! What the chart gives to Prometheus and Grafana, with Debian's Prometheus: alerts by the cases of
//! `monitoring/alerts.yaml`, dashboards by their queries over what real programs serve.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot continue panics")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Backend, Behaviour, Listener, Program, UdpEcho, binary, echoes, forward, free_port, http_get, until};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    server::{Server, done, open_folder},
    site,
};

/// Namespace and name of the forward that a dashboard shows.
const SHOWN: (&str, &str) = ("default", "web");
/// What Grafana puts in place of its variables.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "1m"), ("$namespace", SHOWN.0), ("$forward", SHOWN.1)];
/// Series that only a leading operator or a proxy of a gateway has.
const RECORDED: &str = include_str!("monitoring/recorded.txt");

/// A path in the checkout.
fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn each_alert_fires_when_its_case_says_and_not_before() {
    let cases = checkout("tests/tests/peers/monitoring/alerts.yaml");
    done(&format!("promtool check rules {}", checkout("charts/portlane/monitoring/rules.yaml").display()));
    done(&format!("promtool test rules {}", cases.display()));
}

/// A laptop's proxy with forwards of two namespaces, and an operator that reaches no API server: the ports of their
/// metrics.
struct Programs {
    proxy: u16,
    operator: u16,
    _programs: (Program, Program),
    _data: TempDir,
    _backends: (Backend, UdpEcho),
}

impl Programs {
    fn start() -> Self {
        let [proxy, operator, port] = [free_port(), free_port(), free_port()];
        let backends = (Backend::start(Behaviour::Echo), UdpEcho::start());
        let data = tempfile::tempdir().expect("folder");
        let arguments = ["--max-sessions", "100", "--data", data.path().to_str().expect("UTF-8")];
        let program = Program::run(&manifest(port, &backends), proxy, &arguments);
        until("a session is served", || echoes(port));
        let series = "\nportlane_durable_dropped_total{";
        let was_looked_at = || http_get(proxy, "/metrics").is_ok_and(|(_, page)| page.contains(series));
        until("the log of the durable listener was looked at", was_looked_at);
        Self { proxy, operator, _programs: (program, start_operator(operator)), _data: data, _backends: backends }
    }
}

/// Forwards that have a series of each metric.
fn manifest(port: u16, (tcp, udp): &(Backend, UdpEcho)) -> String {
    let names = "tls: {mode: Passthrough, hostnames: [a.example.com]}";
    let shown = forward(
        SHOWN.1,
        "limits: {maxConnections: 10}\naccess: {denyCIDRs: [192.0.2.0/24]}",
        &[
            Listener::tcp("http", port).to(tcp.port).with("healthCheck: {tcp: {}, intervalSeconds: 1}"),
            Listener::udp("dns", free_port()).to(udp.port),
            Listener::tls("names", free_port()).to(tcp.port).with(names),
            Listener::udp("logs", free_port()).to(udp.port).with("durable: {send: {udp: {}}}"),
        ],
    );
    let other = forward("other", "", &[Listener::tcp("http", free_port()).to(tcp.port)]);
    shown + &other.replace("{name: other}", "{name: other, namespace: shop}")
}

/// The operator serves its metrics without an API server, too.
fn start_operator(health: u16) -> Program {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join("kubeconfig");
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": nowhere}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    });
    fs::write(&config, text.to_string()).expect("a kubeconfig");
    let address = || format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary("portlane-operator"));
    command.env("KUBECONFIG", &config).args(["--namespace", "portlane", "--pod", "operator-1"]);
    command.args(["--health-address", &format!("127.0.0.1:{health}")]);
    command.args(["--stream-address", &address(), "--operator", &address(), "--webhook-address", &address()]);
    let program = Program::start(command, folder);
    until("the operator serves its metrics", || http_get(health, "/metrics").is_ok_and(|(status, _)| status == 200));
    program
}

/// A Prometheus that scrapes these programs, and a server of recorded series.
struct Prometheus {
    port: u16,
    _recorded: Backend,
    _server: Server,
}

impl Prometheus {
    fn start(folder: &Path, programs: &Programs) -> Self {
        let port = free_port();
        let recorded =
            site::serve(|_, stream| site::whole(stream, &[("Content-Type", "text/plain; version=0.0.4")], RECORDED));
        let job = |name: &str, port: u16| {
            format!("{{job_name: {name}, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}")
        };
        let config = format!(
            "{{global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}, scrape_configs: [{}, {}, {}]}}",
            job("proxy", programs.proxy),
            job("operator", programs.operator),
            job("recorded", recorded.port)
        );
        let path = folder.join("prometheus.yml");
        fs::write(&path, config).expect("the file is written");
        let line = format!(
            "prometheus --config.file={} --storage.tsdb.path={} --web.listen-address=127.0.0.1:{port}",
            path.display(),
            folder.join("data").display()
        );
        let is_ready = move || http_get(port, "/-/ready").is_ok_and(|(status, _)| status == 200);
        Self { port, _recorded: recorded, _server: Server::start(folder, &line, is_ready) }
    }

    /// The answer to a query: its series.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let api = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let answer = done(&format!("curl --silent --show-error --get --data-urlencode 'query={query}' {api}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("series").clone()
    }
}

/// The queries of a dashboard: of its panels and of its variables.
fn queries(dashboard: &Value) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let mut queries: BTreeSet<String> =
        targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
    for variable in list(&dashboard["templating"]["list"]) {
        // `label_values(SERIES, LABEL)` is Grafana's own.
        let query = variable["query"]["query"].as_str().and_then(|query| query.strip_prefix("label_values("));
        let Some((series, label)) = query.and_then(|query| query.strip_suffix(')')?.rsplit_once(", ")) else {
            continue;
        };
        queries.insert(format!("group by ({label}) ({series})"));
    }
    queries
}

#[test]
fn every_query_of_the_dashboards_finds_series() {
    let folder = open_folder();
    let programs = Programs::start();
    let prometheus = Prometheus::start(folder.path(), &programs);
    for name in ["overview", "forward"] {
        let text = fs::read_to_string(checkout(&format!("charts/portlane/monitoring/{name}.json"))).expect("a file");
        let queries = queries(&serde_json::from_str(&text).expect("JSON"));
        assert!(queries.len() > 20, "too few queries of {name} are found: {queries:?}");
        for query in queries {
            let query = VARIABLES.iter().fold(query, |query, (name, value)| query.replace(name, value));
            assert!(!query.contains('$'), "a variable of Grafana is unknown here: {query}");
            // A rate needs two scrapes.
            until(&format!("{query} of {name} finds series"), || !prometheus.query(&query).is_empty());
        }
    }
}

/// Name and labels of each series of a scrape, without the labels and suffixes of histograms.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels =
            rest.split(['{', ',']).filter_map(|label| label.split_once("=\"")).map(|(label, _)| label.to_owned());
        all.entry(name.to_owned()).or_default().extend(labels.filter(|label| label != "le"));
    }
    all
}

/// Name and labels of each row of `docs/metrics.md`: `NAME` | type | `LABEL`, `LABEL` | meaning.
fn rows(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
        let labels = rest.split('|').nth(2)?.split('`').skip(1).step_by(2);
        Some((name.to_owned(), labels.map(str::to_owned).collect()))
    };
    page.lines().filter_map(row).collect()
}

#[test]
fn the_page_of_metrics_has_the_labels_that_the_programs_serve() {
    let programs = Programs::start();
    let rows = rows(&fs::read_to_string(checkout("docs/metrics.md")).expect("a page"));
    let scraped = [programs.proxy, programs.operator].map(|port| http_get(port, "/metrics").expect("metrics").1);
    for text in scraped.iter().map(String::as_str).chain([RECORDED]) {
        for (name, labels) in series(text) {
            assert_eq!(rows.get(&name), Some(&labels), "{name} in docs/metrics.md");
        }
    }
}

/// The rows of `docs/metrics.md` as a scrape: `NAME` | type | `LABEL`, `LABEL` | help.
fn scrape(page: &str) -> String {
    let mut text = String::new();
    for row in page.lines().filter(|line| line.starts_with("| `portlane_")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, help, _] = cells[..] else { panic!("not a row of a metric: {row}") };
        let name = name.trim_matches('`');
        let labels: Vec<String> =
            labels.split('`').skip(1).step_by(2).map(|label| format!("{label}=\"word\"")).collect();
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        text += &match kind {
            "histogram" => format!("{name}_bucket{{le=\"+Inf\"}} 1\n{name}_sum 1\n{name}_count 1\n"),
            _ => format!("{name}{{{}}} 1\n", labels.join(",")),
        };
    }
    text
}

/// Counters end with `_total` and nothing else does, units are seconds and bytes, and each metric has a help text. Other
/// tests compare the page with what the programs serve.
#[test]
fn promtool_has_no_complaint_about_the_page_of_metrics() {
    let folder = open_folder();
    let text = scrape(&fs::read_to_string(checkout("docs/metrics.md")).expect("a page"));
    assert!(text.lines().count() > 180, "too few metrics are found: {text}");
    let file = folder.path().join("metrics.txt");
    fs::write(&file, text).expect("the file is written");
    done(&format!("promtool check metrics < {}", file.display()));
}
