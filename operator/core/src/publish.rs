//! What proxies are sent: which snapshot each one should run, which one it is sent next, and which streams and reports of
//! proxies count.

pub mod leadership;
pub mod live;
pub mod position;
pub mod publisher;
pub mod reports;
