//! `kubectl portlane ui`: serves a page on loopback that follows forwards, and reads the cluster while a page is open.

mod browser;
mod serve;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crds::PortForward;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kubectl_core::{
    access::{Fetched, Listed, Place},
    live::usable,
    page::{CONFIGS, Page, Reading, proxies},
    placement::{key, pods},
    top::Sample,
};
use operator_core::names::PROXY_LABEL;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use self::serve::{Site, serve};
use crate::{
    args,
    cluster::Cluster,
    describe::find,
    error::Error,
    live::{self, REFRESH},
    output,
};

/// Longest time for one reading of the cluster, unless a single request may take longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause between two readings.
const PAUSE: Duration = Duration::from_secs(10);

/// Serves the page until a signal ends the program.
pub(crate) async fn run(cluster: &Cluster, args: &args::Ui) -> Result<(), Error> {
    if let Some(name) = &args.forward {
        find(cluster, name).await?;
    }
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.map_err(|source| Error::Page { port: args.port, source })?;
    let token = serve::token()?;
    let url = format!("http://{}/{token}/", listener.local_addr()?);
    output::write(&format!("{url}\n"))?;
    // Dropping the value removes the file.
    let opened = args.open.then(|| browser::open(&url));
    if let Some(Err(error)) = &opened {
        output::note(&format!("cannot open a browser ({error}): open the address above"));
    }
    let site = Arc::new(Site::new(token));
    tokio::select! {
        () = serve(listener, site.clone()) => {}
        () = follow(cluster, args, &site) => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Reads the cluster repeatedly while a page follows.
async fn follow(cluster: &Cluster, args: &args::Ui, site: &Site) {
    let (start, longest) = (Instant::now(), LONGEST.max(cluster.deadline()));
    let mut page = Page::new(described(cluster, args), longest + PAUSE);
    loop {
        site.is_followed().await;
        let began = Instant::now();
        let state = match timeout(longest, Box::pin(read(cluster, args, start))).await {
            Ok(Ok(reading)) => page.take(reading),
            Ok(Err(error)) => page.fail(now(), error.with_causes()),
            Err(_) => {
                page.fail(now(), format!("the cluster has not answered all requests within {} s", longest.as_secs()))
            }
        };
        site.show(&state, &page);
        // Readings of a large cluster take about half of the time.
        sleep(began.elapsed().clamp(REFRESH, PAUSE)).await;
    }
}

/// The title of the page: the selected forwards.
fn described(cluster: &Cluster, args: &args::Ui) -> String {
    let (namespace, address) = (&cluster.namespace, cluster.address());
    match &args.forward {
        Some(name) => format!("PortForward {namespace}/{name} of {address}"),
        None if args.all_namespaces => format!("all namespaces of {address}"),
        None => format!("namespace {namespace} of {address}"),
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads everything once. Fails if the forwards cannot be read; other missing parts are noted in the reading.
async fn read(cluster: &Cluster, args: &args::Ui, start: Instant) -> Result<Reading, Error> {
    let forwards = forwards(cluster, args).await?;
    let (place, keys) = (place(cluster, args), forwards.items.iter().map(key).collect());
    let (pods, sessions, events) = tokio::join!(
        pods_of(cluster, args, &forwards),
        live::together(cluster, &place, keys, None),
        events(cluster, args),
    );
    let asked = if usable(&sessions).is_ok() && !forwards.items.is_empty() { CONFIGS } else { 0 };
    let configs = live::configs(cluster, proxies(&pods).into_iter().take(asked).collect()).await;
    let sample = Sample { at: start.elapsed(), forwards, pods, sessions };
    Ok(Reading { at: now(), sample, configs, events })
}

/// Reads the forward, or the forwards of the namespace or cluster. A forward that was deleted meanwhile is left out.
async fn forwards(cluster: &Cluster, args: &args::Ui) -> Result<Listed<PortForward>, Error> {
    let Some(name) = &args.forward else { return live::forwards(cluster, args.all_namespaces).await };
    let found = cluster.get::<PortForward>(&cluster.namespace, name).await?;
    Ok(Listed::from(found.into_iter().collect::<Vec<_>>()))
}

/// Lists the pods of the forward, which may be those of a gateway elsewhere, or the pods with a proxy of the namespace
/// or cluster.
async fn pods_of(cluster: &Cluster, args: &args::Ui, forwards: &Listed<PortForward>) -> Fetched<Listed<Pod>> {
    let (place, labels) = match (&args.forward, forwards.items.first()) {
        (Some(_), Some(forward)) => {
            let query = pods(forward);
            (Place::Namespace(query.namespace), query.labels)
        }
        _ => (place(cluster, args), PROXY_LABEL.to_owned()),
    };
    cluster.list::<Pod>(&place, ListParams::default().labels(&labels)).await
}

/// Lists events about the forward, or about all forwards of the namespace or cluster.
async fn events(cluster: &Cluster, args: &args::Ui) -> Fetched<Listed<Event>> {
    let mut about = "involvedObject.kind=PortForward".to_owned();
    if let Some(name) = &args.forward {
        about.push_str(&format!(",involvedObject.name={name}"));
    }
    cluster.list::<Event>(&place(cluster, args), ListParams::default().fields(&about)).await
}

fn place(cluster: &Cluster, args: &args::Ui) -> Place {
    if args.all_namespaces { Place::Everywhere } else { Place::Namespace(cluster.namespace.clone()) }
}
