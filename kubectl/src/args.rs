//! The command line.

mod attach;
mod live;

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use kubectl_core::{conns::Clients, live::SessionId, logs::Filter};
pub(crate) use portlane::output::{Format, Output};
use portlane::refusal;

pub(crate) use self::{
    attach::{ClusterRun, Forward},
    live::{Config, Conns, Drain, Lag, Top, Trace, Ui},
};

/// Check a Portlane installation, explain a forward, see and drain its sessions, read its access log.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-portlane",
    bin_name = "kubectl portlane",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes:
  0  everything that was asked for is shown, and nothing has failed
  1  status: a check has failed, or a gateway or a forward is not ready; drain: sessions are left;
     trace: a step fails; validate: a manifest is refused or cannot be read
  2  wrong arguments, no such forward, or the API server cannot be used
  3  something could not be read, usually because a right is missing; nothing else has failed"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the cluster.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// Kubeconfig to use. Absent: the files of KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Absent: its current context.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace to look at. Absent: the namespace of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Maximum time to wait for the answer to one request, in seconds. The live API itself waits up to 12 s for silent
    /// proxies.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    request_timeout: u64,
}

impl Cli {
    /// Reads the arguments of this process. Ends the process with a message if they are invalid, each or together.
    pub(crate) fn read() -> Self {
        let cli = Self::parse();
        let flaw = match &cli.command {
            Command::Run(args) => args.run.flaw().map(|flaw| ("run", flaw)),
            Command::Validate(args) => args.input.flaw().map(|flaw| ("validate", flaw)),
            _ => None,
        };
        if let Some((verb, flaw)) = flaw {
            refusal(Self::command(), verb, &flaw).exit();
        }
        cli
    }

    /// Returns the completion script for a shell.
    pub(crate) fn completion(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "kubectl-portlane", &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

impl Connection {
    /// Maximum time to wait for the answer to one request.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the installation, its gateways and its forwards.
    #[command(after_help = "Examples:
  kubectl portlane status          the installation, and the forwards of this namespace
  kubectl portlane status -A       and those of all namespaces
  kubectl portlane status -o json  for a program")]
    Status(Status),
    /// Explain why a forward is as it is: object, claims, backends, endpoints, proxies.
    #[command(after_help = "Example:\n  kubectl portlane describe db")]
    Describe(Describe),
    /// Print the access log of a forward from all of its proxies together.
    #[command(after_help = "Examples:
  kubectl portlane logs db --since 10m
  kubectl portlane logs db --client 10.0.0.0/8 --reason NoBackend
  kubectl portlane logs db -o wide
  kubectl portlane logs db -f -o json")]
    Logs(Logs),
    /// Listen on this machine and connect each client to a ready pod, through the API server.
    #[command(after_help = "Examples:
  kubectl portlane forward svc/db 15432:5432     a Service, balanced over its ready pods
  kubectl portlane forward deploy/web 8080:http  the pods of a Deployment, by the name of a port
  kubectl portlane forward pod/db-0 5432         one pod, ready or not
  kubectl portlane forward svc/db :5432 -o json  any free port, for a program
  kubectl portlane forward pf/db 15432:          the only listener of a PortForward")]
    Forward(Forward),
    /// Run `PortForward`s from manifests on this machine, and reach their Services through the API server.
    #[command(after_help = "Examples:
  kubectl portlane run -f forwards/ --context staging    the Services of another cluster
  kubectl portlane run -f db.yaml --port-offset 10000    avoid ports in use on this machine
  kubectl portlane run -f db.yaml --resolve pg.shop=127.0.0.1:5432
                                                         all Services of the cluster but one")]
    Run(Box<ClusterRun>),
    /// Validate manifests as an API server would, and check them for conflicts, without a cluster. Exits with 1 if a
    /// manifest is refused.
    #[command(after_help = "Examples:
  kubectl portlane validate forwards/
  helm template shop | kubectl portlane validate -")]
    Validate(portlane::Validate),
    /// List the live sessions of a forward, of a pod, or of all forwards.
    #[command(after_help = "Examples:
  kubectl portlane conns                            of all forwards of this namespace
  kubectl portlane conns db --sort age --watch
  kubectl portlane conns pod/edge-5f7c --client 10.0.0.0/8")]
    Conns(Conns),
    /// List durable listeners in each of their proxies: the age of the oldest message that a sink does not have, how many
    /// wait, and why messages wait or were dropped.
    ///
    /// The figures come through the live API, which takes the rights of `conns`. Where it has none, status tells how a
    /// listener delivers, and a line says why.
    #[command(after_help = "Examples:
  kubectl portlane lag                  of all forwards of this namespace, the oldest message first
  kubectl portlane lag logs -o wide     of one forward, with what was delivered, resent and dropped
  kubectl portlane lag -A -o json       of all namespaces, for a program")]
    Lag(Lag),
    /// Show what the proxy of a pod should run, what it reports, and the difference.
    #[command(after_help = "Examples:
  kubectl portlane config edge-5f7c
  kubectl portlane config edge-5f7c -o yaml")]
    Config(Config),
    /// Follow sessions, rates and health of forwards and pods. `q` quits, `s` sorts, arrows scroll.
    #[command(after_help = "Examples:
  kubectl portlane top
  kubectl portlane top -A --once")]
    Top(Top),
    /// Serve a page on loopback that follows forwards: state, sessions, throughput, events.
    #[command(after_help = "Examples:
  kubectl portlane ui --open       the forwards of this namespace, in a browser
  kubectl portlane ui db           one forward
  kubectl portlane ui -A --port 9999")]
    Ui(Ui),
    /// Close the ports of a forward, or evict a pod, and follow the sessions to their end.
    #[command(after_help = "Examples:
  kubectl portlane drain db                     sets spec.suspend
  kubectl portlane drain pod/edge-5f7c --yes    evicts the pod
  kubectl portlane drain db --yes -o json       a line for each step, for a program")]
    Drain(Drain),
    /// Trace a connection from a pod through a forward to a backend, and name the first step that fails.
    #[command(after_help = "Examples:
  kubectl portlane trace db --from web-5f7c
  kubectl portlane trace db --listener pg --from shop/web-5f7c")]
    Trace(Trace),
    /// Print a completion script for the program `kubectl-portlane`. For `kubectl portlane`, kubectl completes the
    /// words itself, and does not read the script.
    // `portlane` has this command in the plural.
    #[command(
        alias = "completions",
        after_help = "Example:\n  source <(kubectl portlane completion bash)    then: kubectl-portlane st<TAB>"
    )]
    Completion {
        /// Shell to generate the script for.
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Look at all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Namespace of the operator. Absent: the operator is looked for in all namespaces, and in `portlane` if the user may
    /// not list Deployments everywhere.
    #[arg(long, value_name = "NAME")]
    pub(crate) operator_namespace: Option<String>,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// Name of the forward.
    pub(crate) forward: String,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Name of the forward.
    pub(crate) forward: String,
    /// Keep printing new records until the program is ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Age of the oldest record, such as 90s, 10m, 2h or 1d. Absent: no limit.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) since: Option<i64>,
    /// Maximum number of lines to read from the end of the log of each proxy. Lines of other forwards count.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(i64).range(0..=100_000))]
    pub(crate) tail: i64,
    /// Only records about this listener.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Only sessions of clients in this network, or of this address.
    #[arg(long, value_name = "CIDR")]
    client: Option<Clients>,
    /// Only sessions that ended for this reason, such as `ConnectionLimit`.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only the session with this id.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = LogOutput::Text)]
    pub(crate) output: LogOutput,
}

impl Logs {
    /// Which records are printed.
    pub(crate) fn filter(&self) -> Filter {
        let (listener, reason) = (self.listener.clone(), self.reason.clone());
        Filter { listener, client: self.client, reason, session: self.session }
    }
}

/// Formats of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogOutput {
    /// One line of text per record.
    Text,
    /// The same with every field of the record.
    Wide,
    /// One JSON object per record, in one line.
    Json,
    /// One YAML document per record.
    Yaml,
}

/// Reads an age in seconds.
fn age(text: &str) -> Result<i64, String> {
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    });
    let number = text.get(..text.len().saturating_sub(1)).filter(|number| number.bytes().all(|it| it.is_ascii_digit()));
    let number = number.and_then(|number| number.parse::<i64>().ok());
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "must be a number with a unit: 90s, 10m, 2h or 1d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_completes_every_verb() {
        for word in ["completion", "completions"] {
            let cli = Cli::try_parse_from(["kubectl-portlane", word, "bash"]).expect("valid");
            assert!(matches!(cli.command, Command::Completion { shell: Shell::Bash }), "{word}");
        }
        for shell in Shell::value_variants() {
            let script = Cli::completion(*shell);
            assert!(script.contains("kubectl-portlane"), "{shell}");
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell} does not complete {}", verb.get_name());
            }
        }
    }

    #[test]
    fn an_age_has_a_unit() {
        for (text, expected) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(age(text), Ok(expected));
        }
        for bad in ["", "s", "10", "10w", "-1s", "0s", "9999999999999999999d", "1h30m", "ü"] {
            age(bad).expect_err(bad);
        }
    }

    #[test]
    fn the_connection_may_be_named_behind_the_verb() {
        let cli =
            Cli::try_parse_from(["kubectl-portlane", "status", "-n", "shop", "--context", "kind"]).expect("valid");
        assert_eq!(
            (cli.connection.namespace.as_deref(), cli.connection.context.as_deref()),
            (Some("shop"), Some("kind"))
        );
        Cli::try_parse_from(["kubectl-portlane", "status", "-A", "-n", "shop"]).expect_err("one or the other");
    }

    #[test]
    fn validate_takes_files_and_the_namespace_wherever_it_stands() {
        for words in [["validate", "a.yaml", "-n", "shop"], ["-n", "shop", "validate", "a.yaml"]] {
            let cli = Cli::try_parse_from([&["kubectl-portlane"][..], &words].concat()).expect("valid");
            let Command::Validate(args) = &cli.command else { panic!("the command is validate") };
            assert_eq!((args.input.namespace(), args.input.flaw()), ("shop", None));
        }
        let cli = Cli::try_parse_from(["kubectl-portlane", "validate"]).expect("valid");
        let Command::Validate(args) = &cli.command else { panic!("the command is validate") };
        assert_eq!(args.input.namespace(), "default", "there is no cluster with a context");
        assert!(args.input.flaw().is_some_and(|flaw| flaw.contains("name files")));
    }

    #[test]
    fn arguments_that_are_refused_together_show_the_usage_of_their_verb() {
        for (verb, usage) in
            [("run", "Usage: kubectl portlane run "), ("validate", "Usage: kubectl portlane validate ")]
        {
            let text = refusal(Cli::command(), verb, "a flaw").to_string();
            assert!(text.contains("error: a flaw") && text.contains(usage), "{text}");
        }
    }

    #[test]
    fn the_namespace_of_manifests_is_that_of_the_connection() {
        let namespace = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["kubectl-portlane"][..], words].concat()).expect("valid");
            assert!(matches!(cli.command, Command::Run(_)));
            cli.connection.namespace
        };
        assert_eq!(namespace(&["run", "-f", "a.yaml"]), None, "that of the context");
        assert_eq!(namespace(&["run", "-f", "a.yaml", "-n", "shop"]).as_deref(), Some("shop"));
        assert_eq!(namespace(&["-n", "shop", "--context", "kind", "run", "a.yaml"]).as_deref(), Some("shop"));
    }
}
