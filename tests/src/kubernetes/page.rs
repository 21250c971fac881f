//! The page of `kubectl portlane ui`, as a browser follows it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::namespace::Namespace;
use crate::{binary, connect, http_get};

/// A plugin that serves the page until this is dropped.
#[derive(Debug)]
pub struct Page {
    plugin: Child,
    /// Port of the page on this machine.
    pub port: u16,
    /// The secret part of its address, with a slash at the end.
    token: String,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.plugin.kill();
        let _ = self.plugin.wait();
    }
}

impl Page {
    /// Follows a forward of the namespace. Returns when the plugin has printed the address of the page.
    ///
    /// # Panics
    /// The plugin does not start, or prints something else.
    pub fn of(namespace: &Namespace<'_>, forward: &str) -> Self {
        let mut command = Command::new(binary("kubectl-portlane"));
        command.env("KUBECONFIG", namespace.cluster().kubeconfig()).args(["ui", forward, "-n", namespace.name()]);
        let mut plugin = command.stdout(Stdio::piped()).spawn().expect("the plugin runs");
        let printed = plugin.stdout.take().expect("piped");
        let mut page = Self { plugin, port: 0, token: String::new() };
        let mut line = String::new();
        BufReader::new(printed).read_line(&mut line).expect("an address");
        let place = line.trim().strip_prefix("http://127.0.0.1:").and_then(|rest| rest.split_once('/'));
        let (port, token) = place.unwrap_or_else(|| panic!("{line}"));
        page.port = port.parse().expect("a port");
        token.clone_into(&mut page.token);
        page
    }

    /// Status and body of a file of the page.
    ///
    /// # Panics
    /// The plugin does not answer.
    pub fn get(&self, file: &str) -> (u16, String) {
        http_get(self.port, &format!("/{}{file}", self.token)).expect("an answer")
    }

    /// The states that the plugin sends, as they come.
    ///
    /// # Panics
    /// The plugin does not answer, or the stream breaks.
    pub fn states(&self) -> impl Iterator<Item = Value> + use<> {
        let mut events = connect(self.port).expect("the plugin listens");
        write!(events, "GET /{}events HTTP/1.1\r\nHost: localhost\r\n\r\n", self.token).expect("written");
        let lines = BufReader::new(events).lines().map(|line| line.expect("the stream continues"));
        lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
    }
}
