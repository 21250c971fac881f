//! Changes of the configuration: what differs, and what has to be done for it.

pub mod diff;
pub mod edits;
pub mod failures;
pub mod in_place;
pub mod lacking;
pub mod set_users;
pub mod touched;
