//! A machine of a test's own: network and mount namespaces, with hosts and resolv.conf of the test's making.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tempfile::TempDir;

use crate::{PATIENCE, Program, binary, http_get_on, metric, netns, until};

/// Port of the health server of the program under test. No other machine has this network.
const HEALTH: u16 = 9000;

/// Sets the machine up, then lives as long as its standard input. All addresses of two networks for documentation are
/// its own. Both families have an address that is not loopback: getent asks for no other families.
const SETUP: &str = r#"set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc
rm -f /etc/hosts /etc/resolv.conf /etc/nsswitch.conf
echo 'hosts: files dns' > /etc/nsswitch.conf
ip link set lo up
ip address add 192.0.2.1/32 dev lo
ip address add 2001:db8::1/128 dev lo nodad
ip route add local 192.0.2.0/24 dev lo
ip route add local 2001:db8::/64 dev lo
echo ready
exec cat
"#;

/// A machine with a network of its own, and its own files in /etc. It ends when dropped, or with this process.
pub struct Machine {
    holder: Child,
    _folder: TempDir,
}

impl Machine {
    /// A machine with these files, and without a name server.
    #[must_use]
    pub fn start(hosts: &[u8], resolv_conf: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", SETUP]).arg(folder.path());
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare, of util-linux, is there");
        let mut line = String::new();
        let output = holder.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n", "a machine needs root; see the message of its setup above");
        let machine = Self { holder, _folder: folder };
        machine.replace("hosts", hosts);
        machine.replace("resolv.conf", resolv_conf);
        machine
    }

    /// Replaces a file of /etc by rename-over.
    pub fn replace(&self, name: &str, content: &[u8]) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let fresh = self.path(&format!(".new-{}", NEXT.fetch_add(1, Relaxed)));
        fs::write(&fresh, content).expect("write");
        fs::rename(fresh, self.path(name)).expect("rename");
    }

    /// Writes into a file of /etc as an editor does that keeps the file.
    pub fn overwrite(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect("write");
    }

    /// Puts a pipe that nobody writes to in the place of a file of /etc.
    pub fn replace_by_pipe(&self, name: &str) {
        let fresh = self.path(".pipe");
        let made = Command::new("mkfifo").arg(&fresh).status().expect("mkfifo is there");
        assert!(made.success());
        fs::rename(fresh, self.path(name)).expect("rename");
    }

    /// Mounts a file system that never answers over a file of /etc, as a dead server of NFS leaves one. A reader waits
    /// until this is dropped, and gets an error then.
    #[must_use]
    pub fn mount_dead(&self, name: &str) -> DeadMount {
        // FUSE without the program that should answer.
        const MOUNT: &str = "exec 3<>/dev/fuse; mount -i -n -t fuse \
            -o fd=3,rootmode=100000,user_id=0,group_id=0 dead \"$0\" && echo mounted && exec cat";
        let mut command = self.command("sh");
        command.args(["-c", MOUNT, &format!("/etc/{name}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut mount = DeadMount(command.spawn().expect("sh is there"));
        let output = mount.0.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("readable");
        assert_eq!(line, "mounted\n", "the kernel needs FUSE; see the message of mount above");
        mount
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/root/etc/{name}", self.holder.id())
    }

    /// Drops everything that is sent to these addresses of the machine, without a word to the sender.
    pub fn black_hole(&self, addresses: &[&str]) {
        let rules: Vec<(&str, &str)> = addresses.iter().map(|address| (*address, "drop")).collect();
        self.filter(&rules);
    }

    /// Does something, in the words of nftables, to everything that is sent to each of these addresses of the machine.
    pub fn filter(&self, rules: &[(&str, &str)]) {
        let rule = |(address, verdict): &(&str, &str)| {
            let family = if address.contains(':') { "ip6" } else { "ip" };
            format!("{family} daddr {address} {verdict};")
        };
        let rules: String = rules.iter().map(rule).collect();
        let table = format!("table inet hole {{ chain in {{ type filter hook input priority 0; {rules} }}; }}");
        let done = self.command("nft").arg(table).output().expect("nft is installed by cargo xtask setup node");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs `work` in the network of the machine: sockets that it makes stay there.
    ///
    /// # Errors
    /// As `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        netns::within(self.holder.id(), work)
    }

    /// A command in the network and with the files of the machine.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--", program]);
        command
    }

    /// The addresses that the system's own resolver has for a name.
    #[must_use]
    pub fn getent(&self, name: &str) -> BTreeSet<IpAddr> {
        let found = self.command("getent").args(["ahosts", name]).output().expect("getent is part of the C library");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    }

    /// Starts `portlane run` on one manifest and waits until it is ready.
    #[must_use]
    pub fn run(&self, manifest: &str) -> Program {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("forwards.yaml");
        fs::write(&path, manifest).expect("manifest");
        let program = binary("portlane");
        let mut command = self.command(program.to_str().expect("a path in Unicode"));
        command.args(["run", "--log", "json", "--workers", "1", "-f"]).arg(&path);
        command.args(["--health-address", &format!("127.0.0.1:{HEALTH}")]);
        let program = Program::start(command, folder);
        until("the program is ready", || self.get("/readyz").is_ok_and(|(status, _)| status == 200));
        program
    }

    /// A connection to a port of the machine whose reads and writes end after [`PATIENCE`].
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = self.within(|| TcpStream::connect_timeout(&address, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The value of the running program's metric whose line starts with `series`.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.get("/metrics").ok()?.1, series)
    }

    /// Status and body of a GET from the running program's health server.
    ///
    /// # Errors
    /// The program did not answer.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        http_get_on(self.connect(HEALTH)?, path)
    }
}

/// A mount whose file system never answers, until it is dropped.
pub struct DeadMount(Child);

impl Drop for DeadMount {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
