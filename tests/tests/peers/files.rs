//! FTP, TFTP and NFS: vsftpd, tftpd-hpa and `NFS-Ganesha` with curl and libnfs.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::fs;

use harness::{Listener, Program, forward, free_port, free_range, http_get, metric, scene::own_address, until};

use crate::server::{Server, Trial, done, listens, open_folder, receives, run};

/// Ports for transfers.
const TRANSFERS: u16 = 10;

#[test]
fn vsftpd_serves_passive_transfers_and_refuses_active_ones() {
    let (folder, back, port, range) = (open_folder(), free_port(), free_port(), free_range(TRANSFERS));
    // The server names its own ports to clients, so it has them on another address than the forward.
    let (place, host, last) = (folder.path().display(), own_address(), range + TRANSFERS - 1);
    done(&format!(
        "mkdir -p {place}/ftp/pub {place}/empty && echo hello > {place}/ftp/pub/small && head -c 3000000 /dev/urandom > \
         {place}/ftp/pub/big"
    ));
    let configuration = format!(
        "listen=YES\nlisten_address={host}\nlisten_port={back}\nbackground=NO\nanonymous_enable=YES\n\
         no_anon_password=YES\nanon_root={place}/ftp\nsecure_chroot_dir={place}/empty\nseccomp_sandbox=NO\n\
         anon_max_rate=3000000\npasv_address=127.0.0.1\npasv_min_port={range}\npasv_max_port={last}\n"
    );
    fs::write(folder.path().join("vsftpd.conf"), configuration).expect("write");
    let is_ready = move || std::net::TcpStream::connect((host, back)).is_ok();
    let mut server = Server::start(folder.path(), &format!("vsftpd {place}/vsftpd.conf"), is_ready);
    let backend = |port: u16| format!("address: {{host: {host}, port: {port}}}");
    let listeners = [
        Listener::tcp("control", port).backend(&backend(back)),
        Listener::tcp("data", range).with(&format!("endPort: {last}")).backend(&backend(range)),
    ];
    let curl = |options: &str, file: &str| {
        format!("curl -sS --max-time 10 {options} ftp://127.0.0.1:{port}/pub/{file} | cmp - {place}/ftp/pub/{file}")
    };
    {
        let _program = Program::run(&forward("f", "", &listeners), free_port(), &[]);
        done(&curl("", "small"));
        // The client asks the server to connect to the client, and the server sees the proxy's address.
        assert!(run(&curl("--ftp-port 127.0.0.1", "small")).is_err());
    }
    // PASV names an address and a port, EPSV a port only.
    let load = format!("{} && {}", curl("--disable-epsv", "big"), curl("", "small"));
    Trial { listeners: &listeners, client: &curl("--disable-epsv", "small"), load: &load }.run(&mut server);
}

#[test]
fn tftp_answers_from_another_port_and_does_not_pass() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    done(&format!("echo hello > {place}/file"));
    let line = format!("/usr/sbin/in.tftpd -L -u root -s -a 127.0.0.1:{back} {place}");
    let _server = Server::start(folder.path(), &line, receives(back));
    let health = free_port();
    let program = Program::run(&forward("f", "", &[Listener::udp("l", port).to(back)]), health, &[]);
    let curl = |port: u16| run(&format!("curl -sS --max-time 2 tftp://127.0.0.1:{port}/file"));
    assert_eq!(curl(back).as_deref(), Ok("hello"));
    assert!(curl(port).is_err());
    until("the answers are counted", || {
        let (_, text) = http_get(health, "/metrics").expect("metrics");
        metric(&text, "portlane_datagrams_without_port_total") > Some(0.0)
    });
    program.wait("datagrams_without_port", "process");
}

#[test]
fn nfs_4_serves_libnfs() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    // A file system in memory: it stores what fits into an inode.
    let configuration = format!(
        "NFS_CORE_PARAM {{ NFS_Port = {back}; Bind_addr = 127.0.0.1; NFS_Protocols = 4; Enable_NLM = false; \
         Enable_RQUOTA = false; }}\nNFSv4 {{ Graceless = true; RecoveryRoot = \"{place}/recovery\"; }}\nMEM {{ \
         Inode_Size = 65536; }}\nEXPORT {{ Export_Id = 1; Path = /export; Pseudo = /export; Access_Type = RW; Squash = \
         None; SecType = none, sys; Protocols = 4; Transports = TCP; FSAL {{ Name = MEM; }} }}\n"
    );
    fs::write(folder.path().join("ganesha.conf"), configuration).expect("write");
    fs::write(folder.path().join("file"), "hello").expect("write");
    let line = format!("rm -f {place}/pid; ganesha.nfsd -F -f {place}/ganesha.conf -L {place}/log -p {place}/pid");
    let mut server = Server::start(folder.path(), &line, listens(back));
    let client = format!(
        "url=\"nfs://127.0.0.1/export/$$?version=4&nfsport={port}\"; nfs-cp {place}/file \"$url\" && nfs-cat \"$url\" | \
         cmp - {place}/file"
    );
    Trial { listeners: &[Listener::tcp("l", port).to(back)], client: &client, load: &client }.run(&mut server);
}
