//! `kubectl portlane lag`: how durable listeners deliver, by the status of their forwards.

use kubectl_core::{
    access::Listed,
    lag::{of_forwards, report},
    render,
};

use crate::{args, cluster::Cluster, describe::find, error::Error, live, output};

/// Prints the listeners. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Lag) -> Result<bool, Error> {
    let forwards = match &args.forward {
        Some(name) => Listed::from(vec![find(cluster, name).await?]),
        None => live::all_forwards(cluster, args.all_namespaces).await?,
    };
    let note = forwards.is_cut.then(|| format!("only the first {} forwards were read", forwards.items.len()));
    let report = report(of_forwards(&forwards.items), note.into_iter().collect());
    output::print(&report, args.output, render::lag)?;
    Ok(report.notes.is_empty())
}
