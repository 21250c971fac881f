//! Changes of the configuration: the differences, and the steps that they require.

pub mod diff;
pub mod edits;
pub mod failures;
pub mod in_place;
pub mod lacking;
pub mod set_users;
pub mod touched;
