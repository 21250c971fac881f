//! The command line.

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;

#[cfg(feature = "tunnels")]
use crate::agent;
#[cfg(feature = "durable")]
use crate::letters;
use crate::{
    check::{Translate, Validate},
    input::flaw,
    local,
    plugin::{CLUSTER_OPTIONS, CLUSTER_VERBS},
    run::Run,
};

/// Run, validate and translate `PortForward` manifests without a cluster, and look at what runs on this machine.
#[derive(Debug, Parser)]
#[command(name = "portlane", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the arguments of this process. Ends the process with a message if they are invalid, each or together.
    pub(crate) fn read() -> Self {
        let parsed = Self::with_cluster_verbs().try_get_matches();
        let parsed = parsed.and_then(|matches| {
            let verb = matches.subcommand_name().unwrap_or_default().to_owned();
            Ok((verb, Self::from_arg_matches(&matches)?))
        });
        let (verb, cli) = parsed.unwrap_or_else(|error| match cluster_hint(&error) {
            Some(hint) => Self::command().error(ErrorKind::UnknownArgument, hint).exit(),
            None => error.exit(),
        });
        if let Some(flaw) = cli.flaw() {
            refusal(Self::command(), &verb, &flaw).exit();
        }
        cli
    }

    /// The command line with the verbs that only the plugin has: for help, completion, and suggestions for misspelt
    /// verbs.
    pub(crate) fn with_cluster_verbs() -> clap::Command {
        let stub = |verb: &'static str| {
            clap::Command::new(verb).about(format!("In a cluster: kubectl portlane {verb}")).disable_help_flag(true)
        };
        Self::command().subcommands(CLUSTER_VERBS.map(stub))
    }

    /// Describes a conflict between arguments that are valid one by one.
    pub(crate) fn flaw(&self) -> Option<String> {
        match &self.command {
            Command::Run(run) => run.flaw(),
            Command::Translate(args) => flaw(&args.input, &args.laptop.map, false),
            Command::Validate(args) => args.input.flaw(),
            _ => None,
        }
    }
}

/// The message about arguments of a verb that are valid one by one and not together, with the usage of the verb.
#[must_use]
pub fn refusal(mut command: clap::Command, verb: &str, flaw: &str) -> clap::Error {
    // Only then do the verbs have their whole names, such as `portlane run`.
    command.build();
    match command.find_subcommand_mut(verb) {
        Some(verb) => verb.error(ErrorKind::ValueValidation, flaw),
        None => command.error(ErrorKind::ValueValidation, flaw),
    }
}

/// Suggests a replacement for an option that names a cluster.
fn cluster_hint(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_of_a_cluster = error.kind() == ErrorKind::UnknownArgument && CLUSTER_OPTIONS.contains(&argument.as_str());
    is_of_a_cluster.then(|| {
        format!(
            "{argument}: portlane uses no cluster; `kubectl portlane run {argument} ...` runs the same manifests and \
             reaches their Services through the API server"
        )
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run `PortForward`s from manifests on this machine, and apply changes to the files.
    #[command(after_help = "Examples:
  portlane run 5432:db.example.com:5432                      one port to one host, without a manifest
  portlane run -f forwards/                                  every manifest in a folder
  portlane run -f db.yaml --resolve pg.shop=10.0.0.7:5432    give the address of a Service
  portlane run -f . --port-offset 10000                      avoid ports in use on this machine
  portlane run -f . --map shop-db/pg=15432 --only shop-db    one forward, with another port
  helm template shop | portlane run -f -                     read standard input
  portlane run -f home.yaml --tunnel-address 192.0.2.7:7443  agents behind NAT dial this machine

Enter shows the table again; without a terminal, SIGUSR1 does.")]
    Run(Run),
    /// Validate manifests as an API server would, and check them for conflicts. Exits with 1 if a manifest is refused.
    #[command(after_help = "Example:\n  portlane validate -f forwards/")]
    Validate(Validate),
    /// Print the configuration document for a proxy. Exits with 1, without a document, if a manifest is refused.
    #[command(after_help = "Example:
  portlane translate -f forwards/ > config.yaml && portlane-proxy --config config.yaml")]
    Translate(Translate),
    /// Connect to a tunnel server, and let its streams reach targets near this machine.
    #[cfg(feature = "tunnels")]
    #[command(after_help = agent::EXAMPLES)]
    Agent(agent::Agent),
    #[command(flatten)]
    Local(local::Verb),
    /// Print the messages that sinks permanently refuse (dead letters), one JSON object on each line.
    #[cfg(feature = "durable")]
    #[command(after_help = letters::EXAMPLES)]
    Letters(letters::Letters),
    /// Print a completion script for a shell.
    // The plugin has this command in the singular, as kubectl does.
    #[command(alias = "completion", after_help = "Example:\n  source <(portlane completions bash)")]
    Completions {
        /// Shell to generate the script for.
        shell: Shell,
    },
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crds::AccessLogMode::{Close, Disabled, OpenAndClose};

    use super::*;

    fn run(words: &[&str]) -> Run {
        let cli = Cli::try_parse_from([&["portlane", "run"][..], words].concat()).expect("valid arguments");
        let Command::Run(run) = cli.command else { panic!("the command is run") };
        run
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::with_cluster_verbs().debug_assert();
    }

    #[test]
    fn help_names_the_verbs_of_the_plugin_and_a_wrong_verb_is_told_the_nearest() {
        let help = Cli::with_cluster_verbs().render_help().to_string();
        assert!(help.contains("In a cluster: kubectl portlane describe"), "{help}");
        for (word, nearest) in [("descrbe", "'describe'"), ("conn", "'conns'")] {
            let error = Cli::with_cluster_verbs().try_get_matches_from(["portlane", word]).expect_err("unknown");
            assert!(error.to_string().contains(nearest), "{error}");
        }
    }

    #[test]
    fn words_without_an_option_are_forwards_or_paths() {
        let input = run(&["5432:db:5432", "a.yaml", "53:dns:53/udp", "-f", "b.yaml", "-"]).input;
        assert_eq!(input.paths(), ["b.yaml", "a.yaml", "-"].map(PathBuf::from));
        assert_eq!(input.forwards().len(), 2);
    }

    #[test]
    fn arguments_that_are_valid_one_by_one_may_be_refused_together() {
        for (words, expected) in [
            (&["validate"][..], Some("name files, forwards or -f")),
            (&["run"][..], Some("name files, forwards or -f")),
            (&["run", "7700:a:1", "*:7700:b:1"][..], Some("port 7700/TCP is given twice")),
            (&["run", "7700:a:1", "7700:b:1/udp"][..], None),
            (&["run", "a", "--map", "f/l=1", "--map", "f/l=2"][..], Some("--map f/l is given twice")),
            (&["translate", "a", "--map", "f/l=1", "--map", "f/m=2"][..], None),
            (&["run", "--print", "7700:a:1", "-f", "nosuch.yaml"][..], Some("leave out the files")),
            (&["run", "--print", "7700:a:1"][..], None),
        ] {
            let cli = Cli::try_parse_from([&["portlane"][..], words].concat()).expect("valid one by one");
            let flaw = cli.flaw();
            let is_as_expected = match (&flaw, expected) {
                (Some(flaw), Some(expected)) => flaw.contains(expected),
                (flaw, expected) => flaw.is_none() && expected.is_none(),
            };
            assert!(is_as_expected, "{words:?}: {flaw:?}");
        }
    }

    #[test]
    fn arguments_that_are_refused_together_show_the_usage_of_their_verb() {
        for (verb, usage) in [("run", "Usage: portlane run "), ("validate", "Usage: portlane validate ")] {
            let error = refusal(Cli::command(), verb, "a flaw");
            let text = error.to_string();
            assert!(text.starts_with("error: a flaw\n") && text.contains(usage), "{text}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn an_option_that_names_a_cluster_leads_to_the_plugin() {
        let hint = |words: &[&str]| {
            let words = [&["portlane", "run", "-f", "a.yaml"][..], words].concat();
            cluster_hint(&Cli::try_parse_from(words).expect_err("unknown"))
        };
        for words in [&["--context", "kind"][..], &["--context=kind"][..], &["--kubeconfig", "x"][..]] {
            assert!(hint(words).is_some_and(|hint| hint.contains("kubectl portlane run --")), "{words:?}");
        }
        assert_eq!(hint(&["--nosuch"]), None);
        assert_eq!(hint(&["--port-offset", "x"]), None, "the value is wrong");
    }

    #[test]
    fn files_may_have_commas_between_them_as_kubectl_reads_them() {
        let input = run(&["-f", "a.yaml,b.yaml", "-f", "-"]).input;
        assert_eq!(input.paths(), ["a.yaml", "b.yaml", "-"].map(PathBuf::from));
    }

    #[test]
    fn quiet_turns_the_access_log_off_unless_it_is_asked_for() {
        for (words, expected) in [
            (&["a"][..], None),
            (&["a", "--quiet"][..], Some(Disabled)),
            (&["a", "-q", "--access-log", "close"][..], Some(Close)),
            (&["a", "--access-log", "all"][..], Some(OpenAndClose)),
            (&["a", "--access-log", "off"][..], Some(Disabled)),
        ] {
            assert_eq!(run(words).access_log(), expected, "{words:?}");
        }
    }
}
