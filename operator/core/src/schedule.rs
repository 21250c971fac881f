//! What is due when: small state machines that take inputs and the time and give effects. The driver runs the effects.

pub mod rotation;
