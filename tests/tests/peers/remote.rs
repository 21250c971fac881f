//! Sessions of people: `OpenSSH`, RDP and a game.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::fs;

use harness::{Listener, free_port};

use crate::server::{Server, Trial, done, listens, open_folder};

#[test]
fn openssh_serves_ssh_and_scp() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    done(&format!(
        "cd {place} && ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f user && cp user.pub \
         allowed && head -c 3000000 /dev/urandom > file && mkdir -p /run/sshd"
    ));
    let configuration = format!(
        "ListenAddress 127.0.0.1:{back}\nHostKey {place}/host\nAuthorizedKeysFile {place}/allowed\nPidFile \
         none\nUsePAM no\nPermitRootLogin prohibit-password\nStrictModes no\nSubsystem sftp internal-sftp\n"
    );
    fs::write(folder.path().join("sshd.conf"), configuration).expect("write");
    // sshd wants to be started by its whole path.
    let line = format!("/usr/sbin/sshd -D -e -f {place}/sshd.conf");
    let mut server = Server::start(folder.path(), &line, listens(back));
    let options = format!(
        "-F none -i {place}/user -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o \
         UserKnownHostsFile={place}/known"
    );
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("test $(ssh {options} -p {port} root@127.0.0.1 'echo hello') = hello"),
        // A copy of a second: 24,000 kbit/s.
        load: &format!(
            "scp -q -l 24000 {options} -P {port} root@127.0.0.1:{place}/file {place}/copy && cmp {place}/file {place}/copy"
        ),
    }
    .run(&mut server);
}

#[test]
fn xrdp_serves_xfreerdp() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    done(&format!(
        "sed -e 's,^port=3389,port=tcp://127.0.0.1:{back},' -e 's,^LogFile=.*,LogFile={place}/log,' -e \
         's,^EnableSyslog=.*,EnableSyslog=false,' /etc/xrdp/xrdp.ini > {place}/xrdp.ini"
    ));
    let line = format!("xrdp --nodaemon --config {place}/xrdp.ini");
    let mut server = Server::start(folder.path(), &line, listens(back));
    // Up to the end of the negotiation and the login: the desktop behind needs more than a server for RDP.
    let client = format!(
        "HOME={place} timeout 10 xvfb-run -a xfreerdp /v:127.0.0.1:{port} /cert:ignore /u:user /p:password +auth-only"
    );
    Trial { listeners: &[Listener::tcp("l", port).to(back)], client: &client, load: &client }.run(&mut server);
}

#[test]
fn bzflag_serves_bzadmin() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let line = format!("/usr/games/bzfs -p {back} -i 127.0.0.1");
    let mut server = Server::start(folder.path(), &line, listens(back));
    // Without a server this client waits for ever.
    let player = |rest: &str| format!("{rest} timeout 3 /usr/games/bzadmin -ui stdboth player@127.0.0.1:{port}");
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &player("echo /quit |"),
        load: &format!(
            "{} | grep 'player: hello'",
            player("(for n in 1 2 3 4 5; do echo hello; sleep 0.2; done; echo /quit) |")
        ),
    }
    .run(&mut server);
}
