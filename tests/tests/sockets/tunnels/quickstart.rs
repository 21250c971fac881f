//! The two machines of docs/tunnels.md, word for word: each is a folder with a home of its own, and `ssh` to the server
//! runs its command there.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use harness::{binary, free_port, until};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use self::page::{Step, is_shown, steps};

#[allow(dead_code, reason = "the pages of tasks use all of it")]
#[path = "../../node/tasks/page.rs"]
mod page;

const PAGE: &str = include_str!("../../../../docs/tunnels.md");

/// The ports of the page.
const PORTS: [&str; 3] = ["7443", "7000", "7777"];

/// One of the machines.
struct Machine {
    home: TempDir,
    /// Commands that run in the background.
    running: Vec<Child>,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("folder");
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("folder");
        for program in ["portlane", "portlane-echo"] {
            symlink(binary(program), bin.join(program)).expect("link");
        }
        Self { home, running: Vec::new() }
    }

    /// From now on `ssh` runs commands on another machine.
    fn reaches(&self, other: &Path) {
        let ssh = self.home.path().join("bin/ssh");
        fs::write(&ssh, format!("#!/bin/sh\nshift\ncd '{}' && exec \"$@\"\n", other.display())).expect("written");
        fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).expect("permissions");
    }

    fn shell(&self, line: &str) -> Command {
        let home = self.home.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(home).env("HOME", home);
        command.env("PATH", format!("{}:{path}", home.join("bin").display()));
        // The settings of the person who runs the tests do not count.
        for name in ["XDG_STATE_HOME", "PORTLANE_JOIN", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    /// Does what a part of the page says. A command in the foreground is repeated until it prints what is shown.
    fn follow(&mut self, part: &str) {
        for step in steps(part) {
            match step {
                Step::File { name, content } => fs::write(self.home.path().join(name), content).expect("written"),
                Step::Command { line, output } => match line.strip_suffix(" &") {
                    Some(line) => {
                        let child = self.shell(line).process_group(0).spawn().expect("it starts");
                        self.running.push(child);
                    }
                    None => until(&format!("$ {line}\n{}", output.join("\n")), || {
                        let printed = self.shell(&line).stderr(Stdio::null()).output().expect("it runs");
                        printed.status.success() && is_shown(&output, &String::from_utf8_lossy(&printed.stdout))
                    }),
                },
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

#[test]
fn the_page_leads_from_two_machines_to_a_service_behind_one_of_them() {
    let (_, section) = PAGE.split_once("\n## Two machines\n").expect("the heading");
    let mut section = section.split_once("\n## ").expect("a next heading").0.replace("192.0.2.7", "127.0.0.1");
    for port in PORTS {
        // A port that has another one in it would be replaced again.
        let mut free = std::iter::repeat_with(|| free_port().to_string());
        let fresh = free.find(|free| !PORTS.iter().any(|port| free.contains(port))).expect("endless");
        assert!(section.contains(port));
        section = section.replace(port, &fresh);
    }
    let parts: Vec<&str> = section.split("\n### ").collect();
    let [_, on_the_server, at_home, back_on_the_server, undo] = parts[..] else { panic!("other parts: {parts:#?}") };
    assert!(steps(undo).is_empty());
    let (mut server, mut home) = (Machine::new(), Machine::new());
    home.reaches(server.home.path());
    server.follow(on_the_server);
    home.follow(at_home);
    server.follow(back_on_the_server);
}
