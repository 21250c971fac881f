//! How work is divided among threads, and over time.

pub mod hand_over;
pub mod heartbeat;
pub mod heat;
pub mod load;
pub mod rounds;
pub mod schedule;
pub mod turns;
pub mod walk;
