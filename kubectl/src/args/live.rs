//! Arguments of the verbs that read live sessions.

use std::time::Duration;

use clap::Args;
use portlane::Listing;

use super::{Format, Output, age};

#[derive(Args, Debug)]
pub(crate) struct Conns {
    /// Forward, or `pod/NAME`. Absent: all forwards.
    #[arg(value_name = "FORWARD|pod/NAME")]
    pub(crate) of: Option<String>,
    /// Look at the forwards of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "of"])]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) list: Listing,
}

#[derive(Args, Debug)]
pub(crate) struct Lag {
    /// Name of the forward. Absent: all forwards.
    pub(crate) forward: Option<String>,
    /// Look at the forwards of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "forward"])]
    pub(crate) all_namespaces: bool,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Config {
    /// Name of the pod.
    pub(crate) pod: String,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Look at the forwards of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Print the table once, after two seconds. This is the default if input or output is not a terminal.
    #[arg(long)]
    pub(crate) once: bool,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Ui {
    /// Name of the forward. Absent: all forwards.
    pub(crate) forward: Option<String>,
    /// Look at the forwards of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "forward"])]
    pub(crate) all_namespaces: bool,
    /// Port of 127.0.0.1 to serve the page at. 0: any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// Open the page in a browser.
    #[arg(long)]
    pub(crate) open: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Forward, or `pod/NAME`.
    #[arg(value_name = "FORWARD|pod/NAME")]
    pub(crate) of: String,
    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Maximum time to wait for sessions to end, such as 90s, 10m or 2h.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = age)]
    pub(crate) timeout: i64,
    /// Format of the output: what is left, whenever that changes, and the end.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

impl Drain {
    /// Maximum time to wait for the end of sessions.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unsigned_abs())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// Name of the forward.
    pub(crate) forward: String,
    /// Pod of the client. Without NAMESPACE: in the namespace of the forward.
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    pub(crate) from: String,
    /// Name of the listener. Absent: the first one.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn a_format_that_would_show_no_more_is_refused_with_those_that_there_are() {
        let with = |words: &[&str], format: &str| {
            Cli::try_parse_from([&["kubectl-portlane"][..], words, &["-o", format]].concat())
        };
        for words in [
            &["describe", "db"][..],
            &["trace", "db", "--from", "app"],
            &["top"],
            &["drain", "db"],
            &["forward", "svc/db", ":5432"],
        ] {
            let error = with(words, "wide").expect_err("no more to show").to_string();
            assert!(error.contains("'wide'") && error.contains("[possible values: text, json, yaml]"), "{error}");
            for format in ["text", "json", "yaml"] {
                with(words, format).expect("valid");
            }
        }
        for words in [&["status"][..], &["conns"], &["lag", "db"], &["config", "edge"], &["logs", "db"]] {
            for format in ["text", "wide", "json", "yaml"] {
                with(words, format).expect("valid");
            }
        }
    }

    #[test]
    fn a_page_is_of_one_forward_or_of_a_place() {
        let parsed = |words: &[&str]| Cli::try_parse_from([&["kubectl-portlane", "ui"][..], words].concat()).is_ok();
        for words in [&[][..], &["db", "-n", "shop"], &["-A", "--port", "9999", "--open"]] {
            assert!(parsed(words), "{words:?}");
        }
        assert!(!parsed(&["db", "-A"]) && !parsed(&["-A", "-n", "shop"]));
    }

    #[test]
    fn the_lag_is_of_one_forward_or_of_a_place() {
        let parsed = |words: &[&str]| Cli::try_parse_from([&["kubectl-portlane", "lag"][..], words].concat()).is_ok();
        for words in [&[][..], &["logs", "-n", "shop"], &["-A", "-o", "wide"]] {
            assert!(parsed(words), "{words:?}");
        }
        assert!(!parsed(&["logs", "-A"]) && !parsed(&["-A", "-n", "shop"]));
    }

    #[test]
    fn the_clients_are_a_network() {
        let with = |client: &str| Cli::try_parse_from(["kubectl-portlane", "conns", "db", "--client", client]);
        with("10.0.0.0/8").expect("a network");
        with("10.0.0.7").expect("an address");
        let error = with("shop").expect_err("no network").to_string();
        assert!(error.contains("must be a network or an address"), "{error}");
        Cli::try_parse_from(["kubectl-portlane", "conns", "db", "-A"]).expect_err("one or the other");
    }

    #[test]
    fn the_id_of_a_session_is_what_the_log_has() {
        let with = |id: &str| Cli::try_parse_from(["kubectl-portlane", "conns", "db", "--session", id]);
        with("e220a8397b1dcdaf").expect("an id");
        let error = with("e220").expect_err("too short").to_string();
        assert!(error.contains("16 hexadecimal digits"), "{error}");
    }
}
