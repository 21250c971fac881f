//! Databases with their usual clients, with TLS and without: `PostgreSQL`, `MariaDB`, Redis.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::path::Path;

use harness::{Listener, Program, forward, free_port, http_get, metric, until};

use crate::{
    databases::programs,
    server::{Server, Trial, certify, done, listens, open_folder, run},
};

/// `PostgreSQL`, which does not run as root.
fn postgres(folder: &Path, port: u16) -> Server {
    let (place, programs) = (folder.display(), programs().display().to_string());
    let user = "setpriv --reuid=postgres --regid=postgres --clear-groups";
    done(&format!(
        "mkdir {place}/data && chown -R postgres {place} && cd {place} && {user} {programs}/initdb -D {place}/data \
         --auth=trust --no-sync --locale=C"
    ));
    let tls = format!("-c ssl=on -c ssl_cert_file={place}/cert.pem -c ssl_key_file={place}/key.pem");
    let line = format!(
        "cd {place} && {user} {programs}/postgres -D {place}/data -p {port} -c listen_addresses=127.0.0.1 -c \
         unix_socket_directories={place} -c fsync=off {tls}"
    );
    let ready = format!("{programs}/pg_isready --quiet -h 127.0.0.1 -p {port}");
    Server::start(folder, &line, move || run(&ready).is_ok())
}

fn mariadb(folder: &Path, port: u16) -> Server {
    let place = folder.display();
    // A server that starts deletes the temporary tables of all others in its folder for such tables.
    let data = format!("--no-defaults --user=root --datadir={place}/data --tmpdir={place}");
    done(&format!("mariadb-install-db {data} --auth-root-authentication-method=normal"));
    let line = format!(
        "mariadbd {data} --bind-address=127.0.0.1 --port={port} --socket={place}/socket \
         --ssl-cert={place}/cert.pem --ssl-key={place}/key.pem"
    );
    let ready = format!("{} -e 'select 1'", mariadb_client(port));
    Server::start(folder, &line, move || run(&ready).is_ok())
}

fn mariadb_client(port: u16) -> String {
    format!("mariadb --no-defaults --protocol=TCP -h 127.0.0.1 -P {port} -u root -N")
}

/// Manifest of a server behind a port of its own, and behind a name on a shared port.
fn by_port_and_by_name(port: u16, named: u16, to: u16) -> String {
    let named = Listener::tls("named", named).with("tls: {hostnames: [db.example]}").to(to);
    forward("f", "timeouts: {handshakeSeconds: 1}", &[Listener::tcp("l", port).to(to), named])
}

fn unrouted(health: u16, port: u16, reason: &str) -> bool {
    let series = format!("portlane_connections_unrouted_total{{port=\"{port}\",reason=\"{reason}\"}}");
    http_get(health, "/metrics").is_ok_and(|(_, text)| metric(&text, &series) >= Some(1.0))
}

#[test]
fn postgresql_serves_psql_and_pgbench() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    certify(folder.path(), "db.example");
    let mut server = postgres(folder.path(), back);
    let programs = programs().display().to_string();
    done(&format!("{programs}/pgbench -i -q -h 127.0.0.1 -p {back} -U postgres postgres"));
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("test $(psql -X -At -h 127.0.0.1 -p {port} -U postgres -c 'select 6 * 7') = 42"),
        load: &format!("{programs}/pgbench -n -c 4 -T 1 -h 127.0.0.1 -p {port} -U postgres postgres"),
    }
    .run(&mut server);
}

#[test]
fn mariadb_serves_its_client_and_mariadb_slap() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    certify(folder.path(), "db.example");
    let mut server = mariadb(folder.path(), back);
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("test $({} -e 'select 6 * 7') = 42", mariadb_client(port)),
        load: &format!(
            "mariadb-slap --no-defaults --protocol=TCP -h 127.0.0.1 -P {port} -u root --concurrency=4 --iterations=2 \
             --auto-generate-sql --number-of-queries=1000"
        ),
    }
    .run(&mut server);
}

#[test]
fn redis_serves_redis_cli_and_redis_benchmark() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let line = format!("cd {} && redis-server --port {back} --bind 127.0.0.1 --save ''", folder.path().display());
    let mut server = Server::start(folder.path(), &line, listens(back));
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        // redis-cli succeeds whatever the server answers.
        client: &format!("redis-cli -p {port} incr runs | grep '^[0-9]'"),
        load: &format!("redis-benchmark -p {port} -t set,get -n 10000 -q"),
    }
    .run(&mut server);
}

#[test]
fn tls_of_postgresql_is_verified_behind_tcp_and_cannot_be_routed_by_name() {
    let (folder, back, port, named, health) = (open_folder(), free_port(), free_port(), free_port(), free_port());
    certify(folder.path(), "db.example");
    let _server = postgres(folder.path(), back);
    let _program = Program::run(&by_port_and_by_name(port, named, back), health, &[]);
    let psql = |port: u16| {
        let root = folder.path().join("cert.pem");
        run(&format!(
            "psql -X -At 'host=db.example hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres \
             sslmode=verify-full sslrootcert={}' -c 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'",
            root.display()
        ))
    };
    assert_eq!(psql(port).as_deref(), Ok("t"));
    // It asks for TLS in words of its own before it sends a ClientHello.
    assert!(psql(named).is_err());
    until("the reason is counted", || unrouted(health, named, "NotTls"));
}

#[test]
fn tls_of_mariadb_is_verified_behind_tcp_and_cannot_be_routed_by_name() {
    let (folder, back, port, named, health) = (open_folder(), free_port(), free_port(), free_port(), free_port());
    certify(folder.path(), "db.example");
    let _server = mariadb(folder.path(), back);
    let _program = Program::run(&by_port_and_by_name(port, named, back), health, &[]);
    let version = |port: u16| {
        let root = folder.path().join("cert.pem");
        run(&format!(
            "{} --ssl --ssl-ca={} -e \"show status like 'Ssl_version'\"",
            mariadb_client(port),
            root.display()
        ))
    };
    assert!(version(port).is_ok_and(|answer| answer.contains("TLSv1")));
    // The client waits for the server to speak first, and the proxy for the client.
    assert!(version(named).is_err());
    until("the reason is counted", || unrouted(health, named, "HandshakeTimeout"));
}
