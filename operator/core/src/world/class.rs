//! Controller classes: several operators in one cluster, each of which serves the objects of its own class and ignores
//! all others. The empty class is that of objects without `spec.controllerClass`.

use std::collections::BTreeMap;

use crds::{ForwardGateway, PortForward};

use crate::names::CLASS_LABEL;

/// Longest class, in characters: the class is the value of a label.
const LONGEST: usize = 63;

/// The error that a text is not a controller class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a controller class has at most 63 lower case letters, digits and '-', and begins and ends with a letter or a digit"
)]
pub struct ClassError;

/// Reads a class; an empty text is the empty class.
///
/// # Errors
/// The text is not a class.
pub fn parse(text: &str) -> Result<String, ClassError> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_class = text.len() <= LONGEST
        && text.bytes().all(|byte| is_word(byte) || byte == b'-')
        && [text.bytes().next(), text.bytes().next_back()].into_iter().flatten().all(is_word);
    if is_class { Ok(text.to_owned()) } else { Err(ClassError) }
}

/// The class of a forward.
#[must_use]
pub fn of_forward(forward: &PortForward) -> &str {
    forward.spec.controller_class.as_deref().unwrap_or_default()
}

/// The class of a gateway.
#[must_use]
pub fn of_gateway(gateway: &ForwardGateway) -> &str {
    gateway.spec.controller_class.as_deref().unwrap_or_default()
}

/// The class of a pod or of a child of a gateway, by its labels.
#[must_use]
pub fn of_labels(labels: &BTreeMap<String, String>) -> &str {
    labels.get(CLASS_LABEL).map(String::as_str).unwrap_or_default()
}

/// The requirement of a label selector for pods with a proxy, and children of gateways, of this class.
#[must_use]
pub fn requirement(class: &str) -> String {
    if class.is_empty() { format!("!{CLASS_LABEL}") } else { format!("{CLASS_LABEL}={class}") }
}

/// A class in messages, such as `the controller class 'blue'`.
#[must_use]
pub fn words(class: &str) -> String {
    if class.is_empty() { "no controller class".to_owned() } else { format!("the controller class '{class}'") }
}
