//! `kubectl portlane conns`: reads live sessions and prints them, once or repeatedly.

use kubectl_core::{
    access::Place,
    conns::{Report, report},
    live::{Of, usable},
    placement::key,
    render,
};

use crate::{
    args,
    cluster::Cluster,
    error::Error,
    live::{self, REFRESH},
    missing, output,
};

/// Prints the sessions. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Conns) -> Result<bool, Error> {
    let first = Box::pin(read(cluster, args)).await?;
    let is_complete = first.notes.is_empty();
    if !args.list.watch {
        output::print(&first, args.list.output, render::conns)?;
        return Ok(is_complete);
    }
    let mut latest = Ok(first);
    loop {
        match &latest {
            Ok(report) if !output::reprint(report, args.list.output, render::conns)? => return Ok(is_complete),
            Ok(_) => {}
            // The failure may be temporary: the leader may change, and the API server may restart.
            Err(error) => output::note(&Error::with_causes(error)),
        }
        tokio::time::sleep(REFRESH).await;
        latest = Box::pin(read(cluster, args)).await;
    }
}

async fn read(cluster: &Cluster, args: &args::Conns) -> Result<Report, Error> {
    let (reading, note) = if let Some(name) = &args.of {
        (live::sessions(cluster, live::named(cluster, name).await?, args.list.session).await?, None)
    } else {
        let place = if args.all_namespaces { Place::Everywhere } else { Place::Namespace(cluster.namespace.clone()) };
        let forwards = live::forwards(cluster, args.all_namespaces).await?;
        let note = forwards.is_cut.then(|| format!("only the first {} forwards were read", forwards.items.len()));
        let keys = forwards.items.iter().map(key).collect();
        let reading = Box::pin(live::together(cluster, &place, keys, args.list.session)).await;
        usable(&reading)?;
        (reading, note)
    };
    match (&args.of, reading.as_slice()) {
        (Some(_), [(Of::Pod(pod), answer @ Err(_))]) => drop(missing::of_pod(cluster, pod, answer.clone()).await?),
        (Some(_), [(_, Err(why))]) => return Err(why.clone().into()),
        _ => {}
    }
    Ok(report(&reading, args.list.query(), note))
}
