//! A machine beside a node, as behind NAT: it dials out, and nothing can connect to it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::{node::Node, output::CommandOutput};

/// Number of the machine of a node that has one.
const ONLY: u8 = 77;

/// Sets the machine up, then lives as long as its standard input. Only answers come in.
const SETUP: &str = r"set -e
ip link set lo up
nft 'table ip outpost { chain in { type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; }; }'
echo ready
exec cat
";

/// A machine with a network of its own, which routes by a node. It ends when dropped, or with this process.
#[derive(Debug)]
pub struct Outpost {
    holder: Child,
}

impl Outpost {
    /// The machine of a node that has one.
    ///
    /// # Panics
    /// As [`Self::numbered`].
    #[must_use]
    pub fn beside(node: &Node) -> Self {
        Self::numbered(node, ONLY)
    }

    /// One of several machines of a node of IPv4. The number, from 2 to 253, is that of no other one; it ends the address.
    ///
    /// # Panics
    /// The machine cannot be set up; the message of the command that failed is in the panic or above.
    #[must_use]
    pub fn numbered(node: &Node, number: u8) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", SETUP]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare, of util-linux, is there");
        let output = holder.stdout.take().expect("piped");
        let outpost = Self { holder };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n", "a machine needs root and nft; see the message of its setup above");
        let cable = format!("outpost{number}");
        let veth = format!(
            "ip link add {cable} type veth peer name eth0 netns {}; ip link set {cable} master node0; ip link set {cable} up",
            outpost.holder.id()
        );
        shell(within(node.init(), "sh"), &veth);
        let router = node.address();
        let network = format!(
            "ip address add 192.0.2.{number}/24 dev eth0; ip link set eth0 up; ip route add default via {router} dev eth0"
        );
        shell(outpost.command("sh"), &network);
        outpost
    }

    /// A command in the network of the machine.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        within(self.holder.id(), program)
    }

    /// Resets what the machine has connected to this port of others, and what it tries to, until [`Self::restore`].
    pub fn cut(&self, port: u16) {
        let rule = format!("tcp dport {port} reject with tcp reset;");
        let table = format!("nft 'table ip cut {{ chain out {{ type filter hook output priority 0; {rule} }}; }}'");
        shell(self.command("sh"), &table);
    }

    /// Undoes [`Self::cut`].
    pub fn restore(&self) {
        shell(self.command("sh"), "nft delete table ip cut");
    }
}

impl Drop for Outpost {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A command in the network of a process.
fn within(process: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &process.to_string(), "--net", "--", program]);
    command
}

/// Runs lines that must succeed.
#[track_caller]
fn shell(mut shell: Command, lines: &str) {
    CommandOutput::of(shell.args(["-e", "-c", lines]), "").ok();
}
