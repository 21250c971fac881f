//! `portlane run` as the server of tunnels, and agents that dial it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{Listener, Program, binary, forward, free_port, http_get, metric, until};
use tempfile::TempDir;

/// What an agent reads of its environment, and proxies that it does not use.
const VARIABLES: [&str; 9] = [
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "PORTLANE_JOIN",
];

/// `portlane run` with agents on loopback.
pub(super) struct Server {
    pub(super) program: Program,
    /// The port that agents dial.
    pub(super) tunnel: u16,
    health: u16,
    data: TempDir,
}

impl Server {
    /// A server that runs these manifests.
    pub(super) fn start(manifests: &str, arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("folder"), manifests, arguments)
    }

    /// Kills the process, and starts another one in the same folder.
    pub(super) fn kill_and_start(self, manifests: &str, arguments: &[&str]) -> Self {
        let Self { program, data, .. } = self;
        drop(program.kill());
        Self::start_in(data, manifests, arguments)
    }

    fn start_in(data: TempDir, manifests: &str, arguments: &[&str]) -> Self {
        let health = free_port();
        let path = data.path().to_str().expect("UTF-8");
        let all = [&["--tunnel-address", "127.0.0.1:0", "--data", path][..], arguments].concat();
        let program = Program::run(manifests, health, &all);
        let told = line(&program, &["agents connect to 127.0.0.1:"]);
        let (_, rest) = told.split_once("agents connect to 127.0.0.1:").expect("just found");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Self { program, tunnel: digits.parse().expect("a port"), health, data }
    }

    /// Instances of agents that are connected.
    pub(super) fn agents(&self) -> f64 {
        metric(&self.metrics(), "portlane_tunnel_agents ").expect("the gauge")
    }

    /// The page of metrics.
    pub(super) fn metrics(&self) -> String {
        http_get(self.health, "/metrics").expect("metrics").1
    }

    /// Where the join string of agent `home` is.
    pub(super) fn join_file(&self) -> PathBuf {
        self.join_file_of("home")
    }

    fn join_file_of(&self, agent: &str) -> PathBuf {
        self.data.path().join(format!("tunnels/join/default.{agent}"))
    }

    /// The join string of agent `home`, when there is another one than `before`.
    #[track_caller]
    pub(super) fn join(&self, before: &str) -> String {
        self.join_of("home", before)
    }

    /// The join string of an agent, when there is another one than `before`.
    #[track_caller]
    pub(super) fn join_of(&self, agent: &str, before: &str) -> String {
        let mut text = String::new();
        until("a join string is there", || {
            fs::read_to_string(self.join_file_of(agent)).unwrap_or_default().trim().clone_into(&mut text);
            text.starts_with("portlane-join-1.") && text != before
        });
        text
    }
}

/// Agent `home`, as [`agent`].
pub(super) fn home(targets: &[u16], more: &str) -> String {
    agent("home", targets, more)
}

/// An agent that may lead to these ports of its machine, by TCP and UDP. `more` holds further spec fields, one per
/// line.
pub(super) fn agent(name: &str, targets: &[u16], more: &str) -> String {
    let target = |port: &u16| {
        let of = |more: &str| format!("{{host: 127.0.0.1, port: {port}{more}}}");
        [of(""), of(", protocol: UDP")].join(", ")
    };
    let targets: Vec<String> = targets.iter().map(target).collect();
    let mut text = format!(
        "---\napiVersion: portlane.dev/v1alpha1\nkind: ForwardAgent\nmetadata: {{name: {name}}}\nspec:\n  targets: \
         [{}]\n",
        targets.join(", ")
    );
    for line in more.lines() {
        text += &format!("  {line}\n");
    }
    text
}

/// A listener whose backend is this port of the machine of agent `home`.
pub(super) fn listener(name: &str, port: u16, target: u16) -> Listener {
    Listener::tcp(name, port).backend(&behind_home(target))
}

/// A backend at this port of the machine of agent `home`.
pub(super) fn behind_home(target: u16) -> String {
    behind("home", target)
}

/// A backend at this port of the machine of an agent.
pub(super) fn behind(agent: &str, target: u16) -> String {
    format!("tunnel: {{agent: {agent}, host: 127.0.0.1, port: {target}}}")
}

/// Agent `home` and a forward to one port of its machine, which gives up early.
pub(super) fn manifests(port: u16, target: u16, more: &str) -> String {
    home(&[target], more) + &forward("f", "timeouts: {connectSeconds: 1}", &[listener("l", port, target)])
}

/// One process of an agent.
pub(super) struct Agent {
    pub(super) program: Program,
    health: u16,
}

impl Agent {
    /// Starts instance `name` with its data in `folder`, which enrols if there is a join string.
    pub(super) fn start(name: &str, folder: &Path, allowed: &[u16], join: Option<&str>) -> Self {
        Self::start_as(command(folder, allowed), name, join)
    }

    /// As [`Agent::start`], as a process that has so many files at first.
    pub(super) fn with_files(count: usize, folder: &Path, allowed: &[u16], join: &str) -> Self {
        let plain = command(folder, allowed);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -S -n {count}; exec \"$0\" \"$@\""));
        command.arg(plain.get_program()).args(plain.get_args());
        for (variable, _) in plain.get_envs() {
            command.env_remove(variable);
        }
        Self::start_as(command, "one", Some(join))
    }

    /// Starts this command with a name and, if there is one, with a join string in a file.
    pub(super) fn start_as(mut command: Command, name: &str, join: Option<&str>) -> Self {
        let health = free_port();
        let files = tempfile::tempdir().expect("folder");
        command.args(["--name", name, "--drain-seconds", "30"]);
        command.args(["--health-address", &format!("127.0.0.1:{health}")]);
        if let Some(join) = join {
            command.arg("--join-file").arg(written(&files, join));
        }
        Self { program: Program::start(command, files), health }
    }

    /// Starts `portlane agent` with its options in a file, which says that this is the port of its health address.
    pub(super) fn with_config(options: &str, health: u16) -> Self {
        let files = tempfile::tempdir().expect("folder");
        let path = files.path().join("agent.yaml");
        fs::write(&path, options).expect("written");
        let mut command = bare();
        command.arg("--config").arg(path);
        Self { program: Program::start(command, files), health }
    }

    /// As [`Agent::start`], and waits until it has a session.
    #[track_caller]
    pub(super) fn connected(name: &str, folder: &Path, allowed: &[u16], join: Option<&str>) -> Self {
        let agent = Self::start(name, folder, allowed, join);
        until(&format!("instance {name} is connected"), || agent.is_connected());
        agent
    }

    /// Whether it has a session.
    pub(super) fn is_connected(&self) -> bool {
        http_get(self.health, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Streams and flows that it has refused because its list does not have the target.
    pub(super) fn refused(&self) -> f64 {
        let (_, text) = http_get(self.health, "/metrics").expect("metrics");
        metric(&text, "portlane_agent_streams_refused_total{reason=\"not_allowed\"} ").expect("the counter")
    }

    /// Streams that it has now.
    pub(super) fn streams(&self) -> f64 {
        let (_, text) = http_get(self.health, "/metrics").expect("metrics");
        metric(&text, "portlane_agent_streams ").expect("the gauge")
    }
}

/// Exit code and all words of an agent that does not run with a join string.
#[track_caller]
pub(super) fn refused(folder: &Path, join: &str) -> (Option<i32>, String) {
    let files = tempfile::tempdir().expect("folder");
    let mut command = command(folder, &[1]);
    command.arg("--join-file").arg(written(&files, join));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the agent starts");
    until("the agent ends", || child.try_wait().expect("wait").is_some());
    let output = child.wait_with_output().expect("its output");
    let words = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code(), words.concat())
}

/// `portlane agent` with its data in this folder, and with targets on loopback.
pub(super) fn command(folder: &Path, allowed: &[u16]) -> Command {
    let mut command = bare();
    command.args(["--log", "json", "--data"]).arg(folder);
    for port in allowed {
        command.args(["--allow", &format!("127.0.0.1:{port}"), "--allow", &format!("udp/127.0.0.1:{port}")]);
    }
    command
}

/// `portlane agent`, for which the variables of the person who runs the tests do not count.
fn bare() -> Command {
    let mut command = Command::new(binary("portlane"));
    command.arg("agent");
    for name in VARIABLES {
        command.env_remove(name);
    }
    command
}

/// A file with this join string.
fn written(folder: &TempDir, join: &str) -> PathBuf {
    let path = folder.path().join("join");
    fs::write(&path, format!("{join}\n")).expect("written");
    path
}

/// Waits for a line of the log that has all of these words.
#[track_caller]
pub(super) fn line(program: &Program, words: &[&str]) -> String {
    let mut found = None;
    until(&format!("a line of the log with {words:?}"), || {
        let mut lines = program.events().into_iter().map(|event| event.to_string());
        found = lines.find(|line| words.iter().all(|word| line.contains(word)));
        found.is_some()
    });
    found.expect("just found")
}
