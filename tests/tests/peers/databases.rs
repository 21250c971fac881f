//! Checks of real databases: `MariaDB` never blocks the proxy, and `PostgreSQL` logs nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::large_stack_arrays, reason = "a test that cannot continue panics")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{Listener, Program, forward, free_port, http_get, metric, scene::own_address, until};
use tempfile::TempDir;

/// Listeners with the same check, each of which runs once a second: many checks in little time.
const LISTENERS: usize = 10;

/// A database in a folder of its own.
struct Database {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) {
    let done = command.output().expect("the program is installed by cargo xtask setup node");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Database {
    fn start(mut command: Command, folder: TempDir, port: u16) -> Self {
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the program is installed by cargo xtask setup node");
        Self { child, folder, port }
    }

    fn mariadb() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("folder"), free_port());
        let data = format!("--datadir={}", folder.path().join("data").display());
        // A server that starts deletes the temporary tables of all others in its folder for such tables.
        let temporary = format!("--tmpdir={}", folder.path().display());
        let common = ["--no-defaults", "--user=root", &data, &temporary];
        let mut install = Command::new("mariadb-install-db");
        run(install.args(common).arg("--auth-root-authentication-method=normal"));
        let mut command = Command::new("mariadbd");
        command.args(common).args(["--bind-address=0.0.0.0", "--performance-schema=ON"]);
        // Clients on 127.0.0.1 are never blocked, so the proxy connects from another address of this machine.
        command.args(["--max-connect-errors=10", &format!("--port={port}")]);
        command.arg(format!("--socket={}", folder.path().join("socket").display()));
        let database = Self::start(command, folder, port);
        until("MariaDB answers", || database.ask("select 1").is_some_and(|it| it == "1"));
        database
    }

    /// The answer of `MariaDB` to a statement.
    fn ask(&self, statement: &str) -> Option<String> {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        let mut client = Command::new("mariadb");
        let done = client.args(["--no-defaults", &socket, "--user=root", "-Nse", statement]).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    fn connect_errors(&self) -> String {
        self.ask("select coalesce(sum(sum_connect_errors), 0) from performance_schema.host_cache").expect("a count")
    }

    /// A server with these rules of access.
    fn postgres(encrypts: bool, rules: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("folder"), free_port());
        let (programs, data) = (programs(), folder.path().join("data"));
        fs::create_dir(&data).expect("folder");
        // PostgreSQL does not run as root.
        run(Command::new("chown").args(["-R", "postgres"]).arg(folder.path()));
        let as_postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(programs.join(program));
            command.arg("-D").arg(&data);
            command
        };
        run(&mut as_postgres("initdb"));
        fs::write(data.join("pg_hba.conf"), rules).expect("write");
        if encrypts {
            encrypt(&data);
        }
        let mut command = as_postgres("postgres");
        command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", &format!("unix_socket_directories={}", folder.path().display())]);
        command.args(["-c", if encrypts { "ssl=on" } else { "ssl=off" }]);
        let database = Self::start(command, folder, port);
        until("PostgreSQL listens", || database.log().contains("ready to accept connections"));
        database
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The folder of the newest `PostgreSQL` of this machine.
pub(super) fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("installed by cargo xtask setup node");
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("postgres").is_file()).max().expect("a version with a server")
}

/// Gives a server a certificate.
fn encrypt(data: &Path) {
    let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    run(openssl.args(["-subj", "/CN=db", "-days", "2", "-keyout"]).arg(&key).arg("-out").arg(&certificate));
    run(Command::new("chown").arg("postgres").arg(&key).arg(&certificate));
    run(Command::new("chmod").arg("600").arg(&key));
}

/// A forward with many listeners in front of a server, all with this check.
fn manifest(host: &str, port: u16, ports: &[u16], check: &str) -> String {
    let listener = |(at, own): (usize, &u16)| {
        Listener::tcp(&format!("l{at}"), *own)
            .backend(&format!("address: {{host: {host}, port: {port}}}"))
            .with(&format!("healthCheck: {{{check}, intervalSeconds: 2, timeoutSeconds: 2, unhealthyThreshold: 1}}"))
    };
    let listeners: Vec<Listener> = ports.iter().enumerate().map(listener).collect();
    forward("f", "", &listeners)
}

fn ports() -> Vec<u16> {
    (0..LISTENERS).map(|_| free_port()).collect()
}

/// Checks of all listeners with this result.
fn checks(health: u16, result: &str) -> f64 {
    let (_, text) = http_get(health, "/metrics").expect("metrics");
    let series = |at: usize| {
        let labels = format!("kind=\"PortForward\",namespace=\"default\",forward=\"f\",listener=\"l{at}\"");
        format!("portlane_health_checks_total{{{labels},result=\"{result}\"}}")
    };
    (0..LISTENERS).filter_map(|at| metric(&text, &series(at))).sum()
}

#[test]
fn mariadb_never_blocks_the_proxy_for_its_checks_of_mysql() {
    let database = Database::mariadb();
    let (host, port) = (own_address().to_string(), database.port);
    database.ask("create user probe@'%'").expect("an account");
    let (ports, health) = (ports(), free_port());
    let of = |check: &str| manifest(&host, port, &ports, check);
    let program = Program::run(&of("mysql: {}"), health, &[]);
    until("the server has answered thirty checks without an account", || checks(health, "passed") >= 30.0);
    assert_eq!((checks(health, "failed"), database.connect_errors().as_str()), (0.0, "0"));

    program.edit_and_wait(&of("mysql: {user: probe}"), "swapped", "f/l0");
    let before = checks(health, "passed");
    until("the server has let in thirty checks", || checks(health, "passed") >= before + 30.0);
    assert_eq!((checks(health, "failed"), database.connect_errors().as_str()), (0.0, "0"));
    let denied = database.ask("show global status like 'Access_denied_errors'").expect("a count");

    // The server does block a host whose checks only connect, and the check says so.
    program.edit_and_wait(&of("tcp: {}"), "swapped", "f/l0");
    until("the host is blocked", || database.connect_errors().parse::<u32>().is_ok_and(|errors| errors >= 10));
    let seen = program.events().len();
    program.edit_and_wait(&of("mysql: {user: probe}"), "swapped", "f/l0");
    let event = program.wait_after(seen, "unhealthy", "f/l0");
    assert!(event["message"].as_str().is_some_and(|why| why.contains("MySQL error 1129")), "{event}");
    assert_eq!(database.ask("show global status like 'Access_denied_errors'"), Some(denied), "no login was refused");
}

#[test]
fn postgres_logs_nothing_of_its_checks() {
    for encrypts in [false, true] {
        let database = Database::postgres(encrypts, "local all all trust\n");
        let before = database.log();
        let (ports, health) = (ports(), free_port());
        let _program = Program::run(&manifest("127.0.0.1", database.port, &ports, "postgres: {}"), health, &[]);
        until("the server has answered thirty checks", || checks(health, "passed") >= 30.0);
        assert_eq!((checks(health, "failed"), database.log()), (0.0, before));
    }
}

#[test]
fn postgres_logs_nothing_of_checks_that_begin_a_session_and_are_asked_for_a_password() {
    let database = Database::postgres(false, "host all all 127.0.0.1/32 scram-sha-256\n");
    let before = database.log();
    let (ports, health) = (ports(), free_port());
    let manifest = manifest("127.0.0.1", database.port, &ports, "postgres: {user: nobody}");
    let _program = Program::run(&manifest, health, &[]);
    until("the server has asked thirty times", || checks(health, "passed") >= 30.0);
    assert_eq!((checks(health, "failed"), database.log()), (0.0, before));
}
