//! Loads: what a client does for a while. One thread and few system calls, so that the forwarder is what limits.

mod accepts;
mod bulk;
mod calls;
mod changes;
mod connections;
mod idle;
mod open_loop;
mod stretch;
mod trains;
mod udp;

pub(crate) use self::{
    accepts::Accepts,
    bulk::Bulk,
    calls::Calls,
    changes::changes_beside_traffic,
    connections::Connections,
    idle::idle_connections,
    open_loop::OpenLoop,
    stretch::{Done, Load},
    trains::Trains,
    udp::Datagrams,
};
