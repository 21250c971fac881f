//! `kubectl portlane top`: a table of sessions and rates that follows the cluster.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kubectl_core::{
    access::Place,
    live::usable,
    placement::key,
    render,
    top::{Report, Sample, report},
};
use operator_core::names::PROXY_LABEL;
use portlane::{output::Format, view};
use tokio::sync::watch;

use crate::{
    args,
    cluster::Cluster,
    error::Error,
    live::{self, REFRESH},
    output,
};

/// Shows the table until the user quits, or prints it once. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Top) -> Result<bool, Error> {
    let start = Instant::now();
    let first = Box::pin(sample(cluster, args, start)).await?;
    if args.once || args.output != Format::Text || !view::has_viewer() {
        tokio::time::sleep(REFRESH).await;
        let report = report(Some(&first), &Box::pin(sample(cluster, args, start)).await?);
        output::print(&report, args.output.into(), render::top)?;
        return Ok(report.notes.is_empty());
    }
    let (out, latest) = watch::channel(report(None, &first));
    tokio::select! {
        () = follow(cluster, args, start, first, out) => {}
        shown = view::show(latest) => shown?,
    }
    Ok(true)
}

/// Reads one sample of everything.
async fn sample(cluster: &Cluster, args: &args::Top, start: Instant) -> Result<Sample, Error> {
    let place = if args.all_namespaces { Place::Everywhere } else { Place::Namespace(cluster.namespace.clone()) };
    let forwards = live::forwards(cluster, args.all_namespaces).await?;
    let keys = forwards.items.iter().map(key).collect();
    let (pods, sessions) = tokio::join!(
        cluster.list::<Pod>(&place, ListParams::default().labels(PROXY_LABEL)),
        live::together(cluster, &place, keys, None),
    );
    usable(&sessions)?;
    Ok(Sample { at: start.elapsed(), forwards, pods, sessions })
}

/// Sends reports until the receiver is gone. A failed reading becomes a note below the last numbers.
async fn follow(cluster: &Cluster, args: &args::Top, start: Instant, first: Sample, out: watch::Sender<Report>) {
    let mut before = first;
    loop {
        tokio::time::sleep(REFRESH).await;
        let next = match Box::pin(sample(cluster, args, start)).await {
            Ok(now) => {
                let next = report(Some(&before), &now);
                before = now;
                next
            }
            Err(error) => {
                let notes = vec![error.with_causes()];
                Report { notes, ..out.borrow().clone() }
            }
        };
        if out.send(next).is_err() {
            return;
        }
    }
}
