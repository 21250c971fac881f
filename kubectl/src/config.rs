//! `kubectl portlane config POD`: reads the configuration of a proxy and prints it with the difference.

use kubectl_core::{
    config::{ProxyConfig, report},
    live::Request,
    render,
};
use operator_core::ObjectKey;

use crate::{args, cluster::Cluster, error::Error, live, missing, output};

/// Prints the configuration.
pub(crate) async fn run(cluster: &Cluster, args: &args::Config) -> Result<(), Error> {
    let name = args.pod.strip_prefix("pod/").unwrap_or(&args.pod);
    let pod = ObjectKey::new(cluster.namespace.clone(), name);
    let config = live::read::<ProxyConfig>(cluster, &Request::config(&pod)).await;
    let config = missing::of_pod(cluster, &pod, config).await?;
    output::print(&report(&pod, config), args.output, render::config)?;
    Ok(())
}
