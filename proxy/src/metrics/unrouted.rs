//! Series of connections that match no listener.

use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::family;
use crate::core::logging::unrouted::{Unroutable, Unrouted};

/// The unrouted connections of the ports that listeners share by server name.
pub(super) fn unrouted_text(
    out: &mut DescriptorEncoder<'_>,
    ports: &[(u16, Arc<Unrouted>)],
) -> Result<(), std::fmt::Error> {
    let ports: Vec<(String, &Arc<Unrouted>)> = ports.iter().map(|(port, count)| (port.to_string(), count)).collect();
    let series = ports.iter().flat_map(|(port, count)| {
        Unroutable::ALL
            .iter()
            .map(move |why| (vec![("port", port.as_str()), ("reason", why.as_str())], count.get(*why)))
    });
    let help = "Connections to a port of TLS listeners that matched no listener, by reason.";
    family(out, ("portlane_connections_unrouted", help), true, series)
}
