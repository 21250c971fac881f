//! `portlane letters`: prints messages in a folder of this machine that their sinks refuse.

use std::{io, path::PathBuf};

use clap::{Args, ValueHint};
use proxy_api::ListenerId;

use crate::error::Error;

pub(crate) const EXAMPLES: &str = "Examples:
  portlane letters --data /var/lib/portlane
  portlane letters --data /var/lib/portlane default/logs/syslog | jq -r .message

Only reads the folder, which `portlane run` may use meanwhile. In a pod: /portlane-proxy letters.";

#[derive(Args, Debug)]
pub(crate) struct Letters {
    /// Listeners, as `portlane lag` names them. Absent: all.
    #[arg(value_name = "NAMESPACE/FORWARD/LISTENER")]
    listeners: Vec<ListenerId>,
    /// Folder of the process whose messages these are: the value of its --data.
    #[arg(long, value_name = "DIR", env = "PORTLANE_DATA", value_hint = ValueHint::DirPath)]
    data: PathBuf,
}

/// Prints the dead letters of these listeners.
pub(crate) fn print(args: &Letters) -> Result<(), Error> {
    Ok(proxy::letters::print(&args.data, &args.listeners, io::stdout().lock())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::Cli;

    #[test]
    fn listeners_are_named_with_namespace_and_forward() {
        let parse = |listener: &str| Cli::try_parse_from(["portlane", "letters", "--data", "d", listener]);
        for listener in ["default/logs/syslog", "Service/shop/web/l"] {
            parse(listener).expect("a listener");
        }
        let error = parse("syslog").expect_err("no namespace").to_string();
        assert!(error.contains("NAMESPACE/NAME/LISTENER"), "{error}");
    }
}
