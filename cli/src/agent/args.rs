//! The options of `portlane agent`, on its command line and in its file.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ValueEnum, ValueHint};
use serde::Deserialize;

use super::{error::Error, texts};
use crate::options;

/// What the help of `agent` ends with.
pub(crate) const EXAMPLES: &str = "Examples:
  portlane agent --join-file join.txt --allow 127.0.0.1:5432           enrol, and serve a database of this machine
  portlane agent --allow 127.0.0.1:5432                                start again, once enrolled
  portlane agent --config agent.yaml                                   with the options in a file
  portlane agent --allow 'db.home.lan:5432' --allow '10.0.0.0/8:80-90' names, networks and ranges of ports

HTTPS_PROXY and NO_PROXY apply. SIGTERM and Ctrl-C let streams end for --drain-seconds, and a second one ends
them. Exits with 1 if the join string can never be used, and with 2 if the arguments cannot. A server that
does not answer is retried.";

/// Arguments of `agent`.
#[derive(clap::Args, Debug)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(super) options: Options,
    /// YAML file with these options by their names, as in `allow: [127.0.0.1:5432]`. Options on the command line take
    /// precedence.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
}

/// The options that the file may have, too.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Join string of the server. Other users of this machine can read it in the list of processes: prefer --join-file, or the
    /// variable `PORTLANE_JOIN`. An agent that has enrolled needs none.
    #[arg(long, value_name = "STRING", conflicts_with = "join_file")]
    pub(super) join: Option<Secret>,
    /// File with the join string, or - for standard input.
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(super) join_file: Option<PathBuf>,
    /// Target that streams may connect to, as `127.0.0.1:5432`, `db.lan:80-90`, `10.0.0.0/8:22` or `udp/[::1]:53`. Can
    /// be given several times. Absent: none.
    #[arg(long, value_name = "[udp/]HOST:PORT[-PORT]")]
    pub(super) allow: Vec<String>,
    /// Folder for the key and the certificate of this agent. Absent: `portlane-agent` in `$XDG_STATE_HOME` or
    /// `~/.local/state`.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) data: Option<PathBuf>,
    /// Name of this instance among those of the same agent. Absent: the name of the host.
    #[arg(long, value_name = "INSTANCE")]
    pub(super) name: Option<String>,
    /// Address for /livez, /readyz and /metrics. Absent: not served.
    #[arg(long, value_name = "IP:PORT", value_parser = options::socket)]
    pub(super) health_address: Option<SocketAddr>,
    /// Format of the output. Absent: text.
    #[arg(long, value_enum)]
    pub(super) log: Option<Log>,
    /// Maximum time to wait for streams before exit. Absent: 60.
    #[arg(long, value_name = "SECONDS")]
    pub(super) drain_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Log {
    /// One line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// A join string. No output shows it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The options of a file.
pub(super) fn read(path: &Path) -> Result<Options, Error> {
    let text = texts::file(path).map_err(|source| Error::Config { path: path.to_owned(), source })?;
    parse(&text).map_err(|why| Error::Syntax { path: path.to_owned(), why })
}

fn parse(text: &str) -> Result<Options, String> {
    // An empty document is no object.
    if text.trim().is_empty() {
        return Ok(Options::default());
    }
    let options: Options = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if options.join.is_some() && options.join_file.is_some() {
        return Err("it has both join and join-file, leave one out".to_owned());
    }
    Ok(options)
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    /// The options of a command line.
    pub(in super::super) fn options(words: &[&str]) -> Options {
        let cli = Cli::try_parse_from([&["portlane", "agent"][..], words].concat()).expect("valid arguments");
        let Command::Agent(agent) = cli.command else { panic!("the command is agent") };
        agent.options
    }

    /// The options of a file.
    pub(in super::super) fn file(text: &str) -> Options {
        parse(text).expect("a valid file")
    }

    #[test]
    fn the_file_has_the_names_of_the_options() {
        let text = "join-file: /run/join\nallow: ['127.0.0.1:5432', 'udp/[::1]:53']\ndata: /var/lib/a\nname: pi4\n\
                    health-address: '127.0.0.1:9180'\nlog: json\ndrain-seconds: 5\n";
        let words = "--join-file /run/join --allow 127.0.0.1:5432 --allow udp/[::1]:53 --data /var/lib/a --name pi4 \
                     --health-address 127.0.0.1:9180 --log json --drain-seconds 5";
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(format!("{:?}", file(text)), format!("{:?}", options(&words)));
        assert_eq!(format!("{:?}", file("\n")), format!("{:?}", options(&[])));
    }

    #[test]
    fn a_wrong_file_is_told_what_is_wrong_with_it() {
        for (text, words) in [
            ("alow: []", "unknown field `alow`"),
            ("healthAddress: '127.0.0.1:1'", "unknown field `healthAddress`"),
            ("log: loud", "loud"),
            ("drain-seconds: -1", "drain-seconds"),
            ("join: a\njoin-file: b", "both join and join-file"),
        ] {
            let why = parse(text).expect_err(text);
            assert!(why.contains(words), "{text}: {why}");
        }
        let missing = read(Path::new("/nosuch/agent.yaml")).expect_err("missing");
        assert_eq!((missing.code(), missing.to_string().contains("/nosuch/agent.yaml")), (2, true));
    }

    #[test]
    fn one_join_string_is_given_and_no_output_shows_it() {
        let both = ["portlane", "agent", "--join", "secret", "--join-file", "b"];
        assert!(Cli::try_parse_from(both).is_err_and(|error| error.to_string().contains("cannot be used with")));
        let shown = format!("{:?} {:?}", options(&["--join", "secret"]), file("join: secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
