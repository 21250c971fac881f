//! The stream to the operator, and what is reported, written and shown.

pub mod backoff;
pub mod page;
pub mod reports;
pub mod writes;
