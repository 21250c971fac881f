//! A compact builder of manifests.

use std::fmt::Write as _;

/// One listener of a manifest.
#[derive(Clone, Debug)]
pub struct Listener {
    name: String,
    protocol: &'static str,
    port: u16,
    backends: Vec<String>,
    more: String,
}

impl Listener {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A TCP listener without backends.
    #[must_use]
    pub fn tcp(name: &str, port: u16) -> Self {
        Self { name: name.to_owned(), protocol: "TCP", port, backends: Vec::new(), more: String::new() }
    }

    /// A UDP listener without backends.
    #[must_use]
    pub fn udp(name: &str, port: u16) -> Self {
        Self { protocol: "UDP", ..Self::tcp(name, port) }
    }

    /// A TLS listener without backends and hostnames.
    #[must_use]
    pub fn tls(name: &str, port: u16) -> Self {
        Self { protocol: "TLS", ..Self::tcp(name, port) }
    }

    /// Adds a backend on loopback.
    #[must_use]
    pub fn to(self, port: u16) -> Self {
        self.backend(&format!("address: {{host: 127.0.0.1, port: {port}}}"))
    }

    /// Adds a backend as YAML inside braces.
    #[must_use]
    pub fn backend(mut self, yaml: &str) -> Self {
        self.backends.push(format!("{{{yaml}}}"));
        self
    }

    /// Adds a field as YAML.
    #[must_use]
    pub fn with(mut self, yaml: &str) -> Self {
        let _ = write!(self.more, ", {yaml}");
        self
    }
}

/// A `PortForward` in namespace `default`. `spec` holds further spec fields, one per line.
#[must_use]
pub fn forward(name: &str, spec: &str, listeners: &[Listener]) -> String {
    let mut text = format!(
        "---\napiVersion: portlane.dev/v1alpha1\nkind: PortForward\nmetadata: {{name: {name}}}\nspec:\n  placement: \
         {{sidecar: {{selector: {{}}}}}}\n"
    );
    for line in spec.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("  listeners:\n");
    for listener in listeners {
        let Listener { name, protocol, port, backends, more } = listener;
        let backends = backends.join(", ");
        let _ =
            writeln!(text, "  - {{name: {name}, protocol: {protocol}, port: {port}, backends: [{backends}]{more}}}");
    }
    text
}
