//! The shell of a person who follows a page.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use harness::{Namespace, Node, Outpost, binary, helm_command};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// Line after each command, followed by its status.
const END: &str = "-- the command has ended:";
/// Longest run of a command.
const LIMIT: Duration = Duration::from_secs(150);

/// Folders that helm keeps settings and files in.
const OF_HELM: [&str; 3] = ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"];

/// One bash for a page, with helm, and kubectl in one namespace.
pub(crate) struct Shell {
    bash: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    folder: TempDir,
}

impl Shell {
    /// One on the host of the node.
    pub(crate) fn start(node: &Node, namespace: &Namespace<'_>) -> Self {
        let mut bash = Command::new("nsenter");
        bash.arg(format!("--net=/proc/{}/ns/net", node.init())).arg("bash");
        Self::of(bash, node, namespace)
    }

    /// One on a machine beside the node.
    pub(crate) fn on(machine: &Outpost, node: &Node, namespace: &Namespace<'_>) -> Self {
        Self::of(machine.command("bash"), node, namespace)
    }

    /// As [`Self::start`], with the folder /etc of the node.
    pub(crate) fn start_inside(node: &Node, namespace: &Namespace<'_>) -> Self {
        Self::of(node.command("bash"), node, namespace)
    }

    fn of(mut bash: Command, node: &Node, namespace: &Namespace<'_>) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("folder");
        symlink(node.kubectl_program(), bin.join("kubectl")).expect("link");
        symlink(helm_command().get_program(), bin.join("helm")).expect("link");
        for program in ["portlane", "portlane-echo", "kubectl-portlane"] {
            symlink(binary(program), bin.join(program)).expect("link");
        }
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, node.kubeconfig_within()).expect("kubeconfig");
        // helm warns of credentials that others may read.
        fs::set_permissions(&kubeconfig, PermissionsExt::from_mode(0o600)).expect("permissions");
        let path = std::env::var("PATH").unwrap_or_default();
        bash.args(["--noprofile", "--norc"]);
        bash.env("PATH", format!("{}:{path}", bin.display())).env("KUBECONFIG", &kubeconfig);
        bash.env("KUBECTL_KUBERC", "false").env("KUBECACHEDIR", folder.path().join("cache"));
        // The settings of the person who runs the tests do not count.
        bash.envs(OF_HELM.map(|name| (name, folder.path().join("helm"))));
        bash.env("XDG_STATE_HOME", folder.path().join("state")).env_remove("PORTLANE_JOIN");
        bash.env("REGISTRY_AUTH_FILE", folder.path().join("registries.json"));
        // An HTTP proxy of this machine does not reach the node.
        for name in ["http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            bash.env_remove(name);
        }
        bash.current_dir(folder.path()).process_group(0);
        bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut bash = bash.spawn().expect("bash");
        let (sender, lines) = channel();
        let output = BufReader::new(bash.stdout.take().expect("piped"));
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let input = bash.stdin.take().expect("piped");
        let mut shell = Self { bash, input, lines, folder };
        // nsenter starts in the root of another file system.
        let folder = shell.folder().display();
        let here = format!("cd {folder} && kubectl config set-context --current --namespace={}", namespace.name());
        assert_eq!(shell.run(&here).1, 0, "kubectl works");
        shell
    }

    /// Puts these folders of the checkout into the working folder, for a page whose reader stands in a checkout.
    pub(crate) fn check_out(&self, folders: &[&str]) {
        for name in folders {
            let of_checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
            symlink(of_checkout.canonicalize().expect("a folder"), self.folder.path().join(name)).expect("link");
        }
    }

    /// Continues in another folder.
    #[track_caller]
    pub(crate) fn enter(&mut self, folder: &Path) {
        let (printed, status) = self.run(&format!("cd {}", folder.display()));
        assert_eq!(status, 0, "{printed}");
    }

    /// Folder in which the shell begins.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command; gives its output and its status.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str) -> (String, i32) {
        // Output of background jobs does not count as output of the command.
        writeln!(self.input, "{{ {command}\n}} < /dev/null 2>&1; printf '\\n{END} %d\\n' $?").expect("bash runs");
        let (deadline, mut printed) = (Instant::now() + LIMIT, String::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.lines.recv_timeout(left).unwrap_or_else(|why| panic!("`{command}`: {why} after\n{printed}"));
            if let Some(status) = line.strip_prefix(END) {
                return (printed.trim_end().to_owned(), status.trim().parse().expect("a number"));
            }
            printed += &line;
            printed.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The group includes background jobs that the page has left.
        let _ = kill_process_group(Pid::from_child(&self.bash), Signal::KILL);
        let _ = self.bash.wait();
    }
}
