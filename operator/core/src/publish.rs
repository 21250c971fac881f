//! Publication of snapshots: which snapshot each proxy should run, which one it is sent next, and which streams and
//! reports of proxies count.

pub mod leadership;
pub mod live;
pub mod position;
pub mod publisher;
pub mod reports;
