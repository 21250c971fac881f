//! Limits of a process, a namespace, a forward and a source.

pub mod budget;
pub mod capacity;
pub mod cgroup;
pub mod limiter;
pub mod local_ports;
pub mod memory_looks;
pub mod memory_use;
pub mod open_files;
pub mod pipe_sizes;
pub mod reached;
pub mod relief;
pub mod session_room;
pub mod session_sources;
pub mod share;
pub mod tenants;
