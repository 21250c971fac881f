//! The stream to the operator, and the state that is reported, written and shown.

pub mod backoff;
pub mod page;
pub mod reports;
pub mod writes;
