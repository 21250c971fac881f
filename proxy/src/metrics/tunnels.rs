//! Series of the tunnels.

use prometheus_client::encoding::DescriptorEncoder;

use super::{family, single};
use crate::agents::Seen;

/// The connected agents, and the connections that did not become theirs.
pub(super) fn tunnels_text(out: &mut DescriptorEncoder<'_>, seen: &Seen) -> Result<(), std::fmt::Error> {
    let (used, most) = seen.memory;
    let gauges = [
        ("portlane_tunnel_agents", "Connected instances of agents.", seen.agents as u64),
        ("portlane_tunnel_streams", "Streams and flows to agents.", seen.streams as u64),
        (
            "portlane_tunnel_memory_bytes",
            "Bytes that tunnel sessions have granted as windows and keep for resending, beyond 32 KiB of each.",
            used,
        ),
        ("portlane_tunnel_memory_limit_bytes", "Limit of portlane_tunnel_memory_bytes.", most),
        (
            "portlane_tunnel_handed_over",
            "Connections of agents that this proxy hands over to others of its gateway.",
            seen.handed as u64,
        ),
    ];
    for (name, help, value) in gauges {
        single(out, (name, help), false, value)?;
    }
    let help =
        "Datagrams that were dropped on their way to or from agents, because too many waited or one waited too long.";
    single(out, ("portlane_tunnel_datagrams_dropped", help), true, seen.dropped_datagrams)?;
    let closed = seen.closed.iter().map(|(reason, count)| (vec![("reason", *reason)], *count));
    let help = "Connections to the tunnel address that were closed because of a limit or a fault, by reason.";
    family(out, ("portlane_tunnel_connections_closed", help), true, closed)
}
