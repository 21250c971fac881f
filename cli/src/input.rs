//! Arguments that several verbs share: the manifests to read, and how a laptop differs from a cluster.

use std::{collections::BTreeSet, path::PathBuf};

use clap::{
    Args, ValueHint,
    builder::{OsStringValueParser, TypedValueParser},
};

use crate::{
    forward::{self, Forward, Operand},
    options::{self, Map},
};

/// Which manifests to read.
#[derive(Args, Debug)]
pub struct Input {
    /// File, folder or -, as with -f; or a forward without a manifest: `[BIND:]PORT:HOST:PORT[/udp]`, where BIND is 127.0.0.1
    /// (if absent) or *.
    #[arg(
        value_name = "FORWARD|FILE|DIR|-",
        value_parser = OsStringValueParser::new().try_map(forward::operand),
        value_hint = ValueHint::AnyPath
    )]
    operands: Vec<Operand>,
    /// File, folder (its .yaml, .yml and .json files), or - for standard input. Can be given several times, or with
    /// commas between the names.
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE|DIR|-",
        value_delimiter = ',',
        value_parser = OsStringValueParser::new().try_map(options::file),
        value_hint = ValueHint::AnyPath
    )]
    files: Vec<PathBuf>,
    /// Read the subfolders of folders too.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Namespace of objects without metadata.namespace. Absent: default; with a cluster, the namespace of the context.
    // The plugin has the same option for all of its commands. A default would hide that of the context.
    #[arg(short, long, value_name = "NAME", value_parser = options::namespace)]
    namespace: Option<String>,
    /// Use only this forward. Can be given several times.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    pub(crate) only: Vec<String>,
}

impl Input {
    /// Describes a conflict between arguments that are valid one by one, in a sentence for the user.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        flaw(self, &[], false)
    }

    /// Namespace of objects without metadata.namespace, where there is no cluster.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// The paths to read, from all forms of arguments.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let path = |operand: &Operand| match operand {
            Operand::Path(path) => Some(path.clone()),
            Operand::Forward(_) => None,
        };
        self.files.iter().cloned().chain(self.operands.iter().filter_map(path)).collect()
    }

    /// The forwards without a manifest.
    pub(crate) fn forwards(&self) -> Vec<&Forward> {
        let forwards = self.operands.iter().filter_map(|operand| match operand {
            Operand::Path(_) => None,
            Operand::Forward(forward) => Some(forward),
        });
        forwards.collect()
    }
}

/// How a laptop differs from a cluster.
#[derive(Args, Debug)]
pub(crate) struct Laptop {
    /// Address of a Service, which a laptop cannot look up. Can be given several times.
    #[arg(long, value_name = "SVC.NS=HOST[:PORT]", value_parser = options::resolve)]
    pub(crate) resolve: Vec<options::Resolve>,
    /// Number to add to every port to listen on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Port to listen on for one listener, instead of the port in the manifest. Can be given several times.
    #[arg(long, value_name = "FORWARD/LISTENER=PORT", value_parser = options::map)]
    pub(crate) map: Vec<Map>,
}

/// Describes a conflict between arguments that are valid one by one.
pub(crate) fn flaw(input: &Input, maps: &[Map], prints: bool) -> Option<String> {
    let (paths, forwards) = (input.paths(), input.forwards());
    if paths.is_empty() && forwards.is_empty() {
        return Some("nothing to read: name files, forwards or -f".to_owned());
    }
    if prints && !paths.is_empty() && !forwards.is_empty() {
        return Some("--print shows only forwards on the command line: leave out the files".to_owned());
    }
    if let Some(port) = twice(forwards.into_iter().map(Forward::socket)) {
        return Some(format!("port {port} is given twice"));
    }
    let name = |map: &Map| format!("{}/{}", map.forward, map.listener);
    twice(maps.iter().map(name)).map(|name| format!("--map {name} is given twice"))
}

/// The first word that is repeated.
fn twice(mut words: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = BTreeSet::new();
    words.find(|word| !seen.insert(word.clone()))
}
