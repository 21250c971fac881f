//! A machine with a memory limit, and a client that fills the buffers of sockets.
//!
//! The files of the control group are the test's own, because few machines that test let it make a group with a limit. The
//! memory in use follows what the sockets of the program hold, as the kernel counts it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use harness::{Listener, Machine, PATIENCE, forward, until};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{LISTEN, QUICK, SERVE};

/// The limit, and what is in use beside the buffers of sockets, in bytes. Memory is short from 115 MiB on, and until less
/// than 102 MiB is in use.
const LIMIT: u64 = 128 << 20;
const OTHER: u64 = 101 << 20;
/// Sessions of the client that does not read. The least receive buffer of a connection, 128 KiB for each of them, is
/// enough for a shortage.
const UNREAD: usize = 128;
/// How long a client waits for an answer before it looks again.
const LOOKS_AGAIN: Duration = Duration::from_millis(100);
const ENDED: &str = "portlane_connections_closed_total{kind=\"PortForward\",namespace=\"default\",forward=\"f\",\
                     listener=\"l\",reason=\"Shortage\"}";

// D7
#[test]
fn a_client_that_fills_the_memory_by_not_reading_keeps_no_other_client_out() {
    let groups = fs::read_to_string("/proc/self/cgroup").expect("control groups");
    if !groups.lines().any(|line| line.starts_with("0::")) {
        return eprintln!("not run: this machine has no control groups of version 2");
    }
    let machine = Machine::start(b"", QUICK);
    let group = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| fs::write(group.path().join(name), text).expect("a file");
    write("memory.max", format!("{LIMIT}\n"));
    write("memory.current", format!("{OTHER:>20}\n"));
    write("memory.stat", "anon 0\n".to_owned());
    let mounted = machine.command("mount").arg("--bind").arg(group.path()).arg("/sys/fs/cgroup").status();
    assert!(mounted.expect("mount is there").success());
    serve(machine.within(|| TcpListener::bind(("127.0.0.1", SERVE))).expect("a server"));
    let spec = "accessLog: {mode: Disabled}";
    let _program = machine.run(&forward("f", spec, &[Listener::tcp("l", LISTEN).to(SERVE)]));
    let connect = |last: u8, byte: u8, count: usize| {
        machine.within(|| (0..count).map(|_| client(last, byte)).collect::<io::Result<Vec<TcpStream>>>())
    };
    let use_memory = || in_use(group.path(), OTHER + buffered(&machine));
    let before = connect(3, b'e', 1).expect("a client");
    until("a client is served", || is_answered(&before[0]));
    let unread = connect(2, b'f', UNREAD).expect("clients");
    until("memory is short", || {
        use_memory();
        machine.metric("portlane_memory_short ") == Some(1.0)
    });
    let newcomer = connect(4, b'e', 1).expect("a place in the queue");
    until("another client is served", || {
        use_memory();
        is_answered(&newcomer[0])
    });
    assert!(machine.metric(ENDED).is_some_and(|ended| ended >= 1.0));
    (&before[0]).write_all(b"e").expect("the session continues");
    until("who reads keeps the session", || is_answered(&before[0]));
    drop(unread);
}

/// Answers the first byte of each connection: by that byte, or by bytes without end if it is `f`.
fn serve(server: TcpListener) {
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            // What the server itself buffers is of no use to the test.
            SockRef::from(&stream).set_send_buffer_size(1 << 16).expect("an option");
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
                    while byte == *b"f" && stream.write_all(&[0; 1 << 14]).is_ok() {}
                }
            });
        }
    });
}

/// A client with this last byte of its address, in the network of this thread. It has sent a byte.
fn client(last: u8, byte: u8) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], LISTEN)).into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LOOKS_AGAIN))?;
    stream.write_all(&[byte])?;
    Ok(stream)
}

/// Whether the answer of one byte has arrived.
fn is_answered(mut client: &TcpStream) -> bool {
    match client.read(&mut [0]) {
        Ok(read) => read == 1,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => false,
        Err(error) => panic!("the session has ended: {error}"),
    }
}

/// Bytes in the buffers of the program's sockets, with what the kernel needs around them.
fn buffered(machine: &Machine) -> u64 {
    let sockets = format!("( sport = :{LISTEN} or dport = :{SERVE} )");
    let shown = machine.command("ss").args(["-tmnH", &sockets]).output().expect("ss is there, as ip is");
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    // Received, and to be sent or acknowledged: `skmem:(r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)`.
    let counters =
        text.split("skmem:(").skip(1).flat_map(|rest| rest.split(')').take(1)).flat_map(|all| all.split(','));
    counters.filter_map(|counter| counter.strip_prefix(['r', 'w'])?.parse::<u64>().ok()).sum()
}

/// Sets the memory that is in use. The file is written in place and at once: the program keeps it open.
fn in_use(group: &Path, bytes: u64) {
    let mut file = OpenOptions::new().write(true).open(group.join("memory.current")).expect("a file");
    file.write_all(format!("{bytes:>20}\n").as_bytes()).expect("written");
}
