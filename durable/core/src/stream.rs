//! A log in a stream of a server: whose messages this process gives to the sink, and which they are. Its shell speaks with
//! the server.

mod holder;
mod window;

pub use holder::{Answer, Patience, consumer, process};
pub use window::{Given, Window};
