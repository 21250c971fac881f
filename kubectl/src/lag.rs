//! `kubectl portlane lag`: how durable listeners deliver. Of all forwards status tells, of one each of its proxies.

use std::slice::from_ref;

use crds::PortForward;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kubectl_core::{
    access::{Place, note},
    lag::{Report, of_forwards, of_pods, report},
    page::{CONFIGS, proxies},
    placement::pods,
    render,
};

use crate::{args, cluster::Cluster, describe::find, error::Error, live, output};

/// Prints the listeners. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Lag) -> Result<bool, Error> {
    let report = if let Some(name) = &args.forward {
        let forward = find(cluster, name).await?;
        Box::pin(one(cluster, &forward)).await
    } else {
        let forwards = live::all_forwards(cluster, args.all_namespaces).await?;
        let note = forwards.is_cut.then(|| format!("only the first {} forwards were read", forwards.items.len()));
        report(of_forwards(&forwards.items), note.into_iter().collect())
    };
    output::print(&report, args.output, render::lag)?;
    Ok(report.notes.is_empty())
}

/// One forward in its proxies.
async fn one(cluster: &Cluster, forward: &PortForward) -> Report {
    if of_forwards(from_ref(forward)).is_empty() {
        return of_pods(forward, &[]);
    }
    let query = pods(forward);
    let place = Place::Namespace(query.namespace);
    let listed = cluster.list::<Pod>(&place, ListParams::default().labels(&query.labels)).await;
    let mut asked = proxies(&listed);
    let all = asked.len();
    asked.truncate(CONFIGS);
    let mut report = of_pods(forward, &live::configs(cluster, asked).await);
    report.notes.extend(note(&listed, "pods"));
    if all > CONFIGS {
        report.notes.push(format!("only the first {CONFIGS} of {all} proxies were asked"));
    }
    report
}
