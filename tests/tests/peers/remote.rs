//! Sessions of people: `OpenSSH`, RDP and games.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::fs;

use harness::{Listener, free_port};

use crate::server::{Server, Trial, done, listens, open_folder, receives};

#[test]
fn openssh_serves_ssh_scp_sftp_and_rsync() {
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
    // sshd has to be started by its whole path.
    let line = format!("/usr/sbin/sshd -D -e -f {place}/sshd.conf");
    let mut server = Server::start(folder.path(), &line, listens(back));
    let options = format!(
        "-F none -i {place}/user -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o \
         UserKnownHostsFile={place}/known"
    );
    Trial {
        listeners: &[Listener::tcp("l", port).to(back)],
        client: &format!("test $(ssh {options} -p {port} root@127.0.0.1 'echo hello') = hello"),
        // A copy of a second, 24,000 kbit/s, and two short ones.
        load: &format!(
            "scp -q -l 24000 {options} -P {port} root@127.0.0.1:{place}/file {place}/scp && \
             echo 'get {place}/file {place}/sftp' | sftp -q {options} -P {port} -b - root@127.0.0.1 && \
             rsync -IW -e 'ssh {options} -p {port}' root@127.0.0.1:{place}/file {place}/rsync && \
             for copy in scp sftp rsync; do cmp {place}/file {place}/$copy || exit 1; done"
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

/// Plays until the client is in the game. The client has no end of its own, and its display outlives it.
const PLAYER: &str = "\
timeout 20 xvfb-run -a /usr/games/teeworlds \"gfx_fullscreen 0; snd_enable 0; connect $1\" > $HOME/log 2>&1 &
until grep -q 'client/network.*loading done' $HOME/log; do kill -0 $! || exit 1; sleep 0.1; done
kill $!
wait || true
";

#[test]
fn teeworlds_server_serves_teeworlds() {
    let (folder, back, port) = (open_folder(), free_port(), free_port());
    let place = folder.path().display();
    fs::write(folder.path().join("player.sh"), PLAYER).expect("write");
    let line = format!("HOME={place} /usr/games/teeworlds-server 'sv_port {back}; bindaddr 127.0.0.1; sv_register 0'");
    let mut server = Server::start(folder.path(), &line, receives(back));
    let player = format!(
        "HOME=$(mktemp -d {place}/home.XXXXXX) unshare --pid --fork --kill-child --mount-proc sh {place}/player.sh \
         127.0.0.1:{port}"
    );
    Trial { listeners: &[Listener::udp("l", port).to(back)], client: &player, load: &player }.run(&mut server);
}
