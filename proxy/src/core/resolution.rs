//! DNS names of backends.

pub mod dns;
pub mod names;
