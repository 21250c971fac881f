//! Disks and folders that a durable listener cannot use.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Listener, Program, binary, connect, forward, free_port, http_get, until};
use tempfile::tempdir;

use super::{COUNT, Sink, durable, figure, messages, run, send_datagrams, until_kept};

/// The start of a segment of version 2: the name of the format, the version, and a checksum of both.
const NEWER: &[u8; 16] = b"PLDURLOG\x02\0\0\0\x75\xab\x14\x1e";

#[test]
fn a_log_of_a_newer_version_is_left_as_it_is_and_the_remedy_is_told() {
    let data = tempdir().expect("a folder");
    let folder = data.path().join("durable/default/f/u");
    fs::create_dir_all(&folder).expect("a folder");
    let segment = folder.join("log-0000000000000000.log");
    let mut bytes = NEWER.to_vec();
    bytes.resize(256, b'?');
    fs::write(&segment, &bytes).expect("a file");
    let manifests = forward("f", "", &[durable(Listener::udp("u", free_port()), free_port())]);
    let program = run(&manifests, free_port(), data.path());
    let told = program.wait("failed", "default/f/u").to_string();
    assert!(told.contains("has version 2 of the log") && told.contains("run the newer program"), "{told}");
    assert_eq!(fs::read(&segment).expect("it stays"), bytes);
}

#[test]
fn damage_of_a_log_is_told_and_what_is_left_of_it_is_kept_for_a_person() {
    let data = tempdir().expect("a folder");
    let folder = data.path().join("durable/default/f/u");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("log-0000000000000000.log"), [b'?'; 256]).expect("a file");
    let manifests = forward("f", "", &[durable(Listener::udp("u", free_port()), free_port())]);
    let program = run(&manifests, free_port(), data.path());
    let told = program.wait("store", "default/f/u").to_string();
    assert!(
        told.contains("a part of the log is damaged")
            && told.contains(".damaged and is kept for a while: check the disk"),
        "{told}"
    );
    program.wait("bound", "default/f/u");
    assert_eq!(fs::read(folder.join("log-0000000000000000.damaged")).expect("it is kept"), [b'?'; 256]);
}

#[test]
fn a_folder_that_is_removed_is_told_and_made_anew_and_what_it_had_counts_as_lost() {
    counts_as_removed(|folder| fs::remove_dir_all(folder).expect("it is there"));
}

#[test]
fn a_folder_that_is_moved_counts_as_removed() {
    counts_as_removed(|folder| fs::rename(folder, folder.with_extension("moved")).expect("it is there"));
}

/// Takes the folder of all logs away while messages wait in one.
fn counts_as_removed(take_away: fn(&Path)) {
    let (udp, sink, health, data) = (free_port(), free_port(), free_port(), tempdir().expect("a folder"));
    let manifests = forward("f", "", &[durable(Listener::udp("u", udp), sink)]);
    let program = run(&manifests, health, data.path());
    send_datagrams(udp, &messages("early"));
    until_kept(health, "u", COUNT);
    take_away(&data.path().join("durable"));
    let told = program.wait("delivery", "default/f/u").to_string();
    let lost = format!("was removed or moved, with a loss of {COUNT} messages: ");
    assert!(told.contains("StoreFailed: no message waits; ") && told.contains(&lost), "{told}");
    let is_counted = || figure(health, "lost_total", "u", "") == Some(COUNT as u64);
    until("what was in it counts as lost, once", || is_counted() && figure(health, "store_failed", "u", "") == Some(0));
    assert!(data.path().join("durable/default/f/u/LOCK").exists(), "it is recreated");
    let sink = Sink::start(sink);
    send_datagrams(udp, &messages("late"));
    until("later messages arrive", || sink.taken("").len() >= COUNT);
    assert_eq!((sink.taken("early").len(), sink.taken("late")), (0, messages("late")));
}

#[test]
fn a_client_that_does_not_speak_relp_is_told_with_its_address() {
    let (port, data) = (free_port(), tempdir().expect("a folder"));
    let relp = "durable: {framing: Relp, send: {relp: {}}}";
    let manifests = forward("f", "", &[Listener::tcp("t", port).to(free_port()).with(relp)]);
    let program = run(&manifests, free_port(), data.path());
    let mut client = connect(port).expect("a connection");
    let address = client.local_addr().expect("an address").to_string();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is sent");
    let told = program.wait("client", "default/f/t").to_string();
    assert!(told.contains("closed 1 connection ") && told.contains(&address), "{told}");
}

/// `portlane run` with its messages on a file system of 64 KiB that something else has filled, and the path of that
/// file as this process sees it. `None`: this user may not mount.
fn run_on_a_full_disk(manifests: &str, health: u16) -> Option<(Program, PathBuf)> {
    let folder = tempdir().expect("a folder");
    let (path, data) = (folder.path().join("forwards.yaml"), folder.path().join("data"));
    fs::write(&path, manifests).expect("manifest");
    fs::create_dir(&data).expect("a folder");
    let within = |script: &str| {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let mount = "mount -t tmpfs -o size=64k tmpfs \"$0\"";
        command.args(["--mount", "sh", "-c", &format!("{mount} && {script}")]).arg(&data);
        command
    };
    if !within("true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = within("head -c 1M /dev/zero > \"$0/other\" 2> /dev/null; exec \"$@\"");
    command.arg(binary("portlane")).args(["run", "--log", "json", "-f"]).arg(&path).arg("--data").arg(&data);
    command.args(["--health-address", &format!("127.0.0.1:{health}")]);
    let program = Program::start(command, folder);
    until("the program is ready", || http_get(health, "/readyz").is_ok_and(|(status, _)| status == 200));
    let root = PathBuf::from(format!("/proc/{}/root", program.id()));
    let other = root.join(data.strip_prefix("/").expect("a whole path")).join("other");
    Some((program, other))
}

#[test]
fn messages_that_a_full_disk_has_no_room_for_are_counted_and_later_ones_are_kept_once_it_has() {
    let (port, sink, health) = (free_port(), free_port(), free_port());
    let manifests = forward("f", "", &[durable(Listener::udp("u", port), sink)]);
    let Some((program, other)) = run_on_a_full_disk(&manifests, health) else {
        eprintln!("not run: this user may not mount a file system");
        return;
    };
    send_datagrams(port, &messages("early"));
    let dropped = |reason: &str| figure(health, "dropped_total", "u", &format!(",reason=\"{reason}\""));
    until("they are counted", || dropped("DiskFailed") == Some(COUNT as u64));
    assert_eq!(dropped("Full"), Some(0), "the log has room");
    let told = program.wait("delivery", "default/f/u").to_string();
    let full = "durable/default/f/u, or its quota, is full: free space there";
    assert!(told.contains("StoreFailed: ") && told.contains(full), "{told}");
    assert!(!told.contains("raise maxBytes"), "{told}");
    fs::remove_file(other).expect("the file that fills the disk");
    let sink = Sink::start(sink);
    let late = messages("late");
    send_datagrams(port, &late);
    until("the sink has the later ones", || sink.taken("").len() >= COUNT);
    assert_eq!(sink.taken(""), late);
}
