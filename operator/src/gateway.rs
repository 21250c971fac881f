//! The children of gateways: what they should be ([`children`], pure), and applying them.

pub mod apply;
pub mod children;
