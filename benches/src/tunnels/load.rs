//! The loads of byte-path that say something about tunnels.

#[path = "../byte_path/load/bulk.rs"]
mod bulk;
#[path = "../byte_path/load/calls.rs"]
mod calls;
#[path = "../byte_path/load/connections.rs"]
mod connections;
#[path = "../byte_path/load/stretch.rs"]
mod stretch;

pub(crate) use self::{
    bulk::Bulk,
    calls::Calls,
    connections::Connections,
    stretch::{Done, Load},
};
