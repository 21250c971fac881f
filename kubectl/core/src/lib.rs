//! The reports of `kubectl-portlane`: pure functions from objects of a cluster to a report, and from a report to text.
//!
//! ```text
//! objects, or why they cannot be read ──▶ status::report ──▶ render::status ──▶ text
//!                                    ├──▶ describe::report ─▶ render::describe ┤
//!                                    └──▶ trace::report ────▶ render::trace ───┤
//! documents of the live API ─────────┬──▶ conns::report ────▶ render::conns ───┤
//!                                    ├──▶ lag::of_cluster ──▶ render::lag ─────┤
//!                                    └──▶ config::report ───▶ render::config ──┤
//! two readings of sessions ──────────┬───▶ top::report ──────▶ render::top ─────┘
//!                                    └───▶ page::Page ───────▶ JSON of the page
//! ```
//!
//! [`local`] makes the same reports from the answers of the admin address of a process on this machine.
//!
//! The crate has no client, no clock and no environment: the time is an argument.

pub mod access;
pub mod check;
pub mod config;
pub mod conns;
pub mod describe;
pub mod drain;
pub mod forward;
pub mod installation;
pub mod lag;
pub mod live;
pub mod local;
pub mod logs;
pub mod nearest;
pub mod page;
pub mod placement;
mod printable;
pub mod remedy;
pub mod render;
pub mod rows;
pub mod status;
pub mod time;
pub mod top;
pub mod trace;
pub mod units;
