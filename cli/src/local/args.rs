//! Arguments of the verbs that look at a process on this machine.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use kubectl_core::local;

use crate::{
    listing::Listing,
    options,
    output::{Format, Output},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Check `portlane run` or `portlane-proxy` on this machine, and show its forwards. Exits with 1 if one does not run.
    #[command(after_help = "Examples:
  portlane run -f forwards/ --admin-address 127.0.0.1:9181 &
  portlane status
  portlane status --admin-address 127.0.0.1:9999 -o json")]
    Status(Status),
    /// List the live sessions of a forward, or of all forwards on this machine.
    #[command(after_help = "Examples:
  portlane conns                           of all forwards
  portlane conns db --sort age --watch
  portlane conns --client 10.0.0.0/8 -o wide")]
    Conns(Conns),
    /// Follow sessions and rates of the forwards on this machine. `q` quits, `s` sorts, arrows scroll.
    #[command(after_help = "Examples:\n  portlane top\n  portlane top --once")]
    Top(Top),
    /// List durable listeners on this machine: the age of the oldest message that a sink does not have, how many wait, and
    /// how the listener delivers.
    #[command(after_help = "Examples:
  portlane lag                             of all forwards, the oldest message first
  portlane lag logs -o wide
  portlane lag -n shop -o json")]
    Lag(Lag),
    /// Show what the process on this machine should run, what it runs, and the difference.
    #[command(after_help = "Examples:\n  portlane config\n  portlane config -o yaml")]
    Config(Config),
}

/// The process.
#[derive(Args, Debug)]
pub(crate) struct Process {
    /// Admin address of the process, on loopback: the value of its --admin-address. If that has port 0, `portlane run`
    /// prints the port.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9181", value_parser = loopback)]
    pub(super) admin_address: SocketAddr,
}

/// The namespaces.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Look only at forwards of this namespace.
    #[arg(short, long, value_name = "NAME", value_parser = options::namespace)]
    namespace: Option<String>,
    /// Look at the forwards of all namespaces, as without -n.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

impl Place {
    /// The forwards of this name, or all.
    pub(super) fn scope(&self, name: Option<&String>) -> local::Scope {
        let namespace = if self.all_namespaces { None } else { self.namespace.clone() };
        local::Scope { namespace, name: name.cloned() }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) place: Place,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Conns {
    /// Name of the forward. Absent: all forwards.
    pub(super) forward: Option<String>,
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    pub(super) list: Listing,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) place: Place,
    /// Print the table once, after two seconds. This is the default if input or output is not a terminal.
    #[arg(long)]
    pub(super) once: bool,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct Lag {
    /// Name of the forward. Absent: all forwards.
    pub(super) forward: Option<String>,
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) place: Place,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(super) process: Process,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// `--admin-address`: an address that only this machine reaches, as that of `portlane run` must be.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = options::socket(text)?;
    if address.ip().is_loopback() && address.port() > 0 {
        return Ok(address);
    }
    Err("must be on loopback and have a port, as 127.0.0.1:9181 or [::1]:9181".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn verb(words: &[&str]) -> Result<Verb, String> {
        let cli = Cli::try_parse_from([&["portlane"][..], words].concat()).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Local(verb) => Ok(verb),
            other => Err(format!("another command: {other:?}")),
        }
    }

    #[test]
    fn the_words_of_the_plugin_are_accepted() {
        for words in [
            &["status", "-A", "-o", "wide"][..],
            &["conns", "db", "-n", "shop", "--sort", "age", "--client", "10.0.0.0/8", "--limit", "5", "-w"],
            &["conns", "--session", "e220a8397b1dcdaf", "-o", "yaml"],
            &["top", "--once", "-o", "json"],
            &["lag", "logs", "-n", "shop", "-o", "wide"],
            &["config", "--admin-address", "[::1]:9181", "-o", "wide"],
        ] {
            verb(words).expect("valid");
        }
        let error = verb(&["top", "-o", "wide"]).expect_err("it would show no more");
        assert!(error.contains("[possible values: text, json, yaml]"), "{error}");
        let error = verb(&["status", "-A", "-n", "shop"]).expect_err("one or the other");
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn the_address_is_that_of_the_documentation_or_another_one_on_loopback() {
        let Ok(Verb::Config(config)) = verb(&["config"]) else { panic!("no configuration") };
        assert_eq!(config.process.admin_address.to_string(), "127.0.0.1:9181");
        for bad in ["10.0.0.1:9181", "0.0.0.0:9181", "127.0.0.1:0"] {
            assert!(loopback(bad).is_err_and(|why| why.contains("must be on loopback")), "{bad}");
        }
        assert!(loopback("9181").is_err_and(|why| why.contains("IP:PORT")));
    }

    #[test]
    fn the_scope_is_a_namespace_a_name_or_everything() {
        let scope = |words: &[&str]| {
            let Ok(Verb::Conns(conns)) = verb(words) else { panic!("no list") };
            let scope = conns.place.scope(conns.forward.as_ref());
            (scope.namespace, scope.name)
        };
        assert_eq!(scope(&["conns"]), (None, None));
        assert_eq!(scope(&["conns", "-A"]), (None, None));
        assert_eq!(scope(&["conns", "db", "-n", "shop"]), (Some("shop".to_owned()), Some("db".to_owned())));
    }
}
