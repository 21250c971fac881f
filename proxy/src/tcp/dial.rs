//! One connection to an endpoint, until a session takes it.

use std::{io, net::SocketAddr};

use rustix::io::Errno;
use tokio::io::Interest;

use super::direction::{Delay, End};
use crate::{
    agents::{Agents, Link},
    core::backends::address::Address,
    net,
    sys::Socket,
};

/// Connects for `client`, and sends `header`. A connection that is given up ends by reset, also if the kernel has
/// completed it and the runtime does not know yet: servers such as `MySQL` count an end without a byte as an error of the
/// client.
///
/// # Errors
/// Why there is no connection, as `socket(2)` and `connect(2)`, or as the agent says.
pub async fn dial(agents: &Agents, to: &Address, client: SocketAddr, header: &[u8]) -> io::Result<End> {
    let server = match to {
        Address::Socket(to) => connect(*to).await?,
        Address::Agent(to) => behind_agent(agents.open(to, client).await?).await?,
    };
    write(&server, header).await?;
    Ok(server)
}

async fn connect(to: SocketAddr) -> io::Result<End> {
    let socket = net::upstream_tcp(to)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => {}
    }
    let server = End::new(Socket::watch(socket.into())?);
    server.is_bounded.set(false);
    server.delay.set(Delay::Fresh);
    server.stream.connected().await?;
    // A connect to a dead port in the ephemeral range can connect to itself.
    let own = server.stream.local_addr()?;
    if (own.ip(), own.port()) == (to.ip(), to.port()) {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nothing listens there: the connection reached itself",
        ));
    }
    Ok(server)
}

/// Takes the connection to an agent once the runtime knows that there is room. Until it does, a session would keep the
/// first bytes of its client, and watch for errors of the client, which it does not read meanwhile.
async fn behind_agent(link: Link) -> io::Result<End> {
    let server = End::behind_agent(link)?;
    server.stream.ready(Interest::WRITABLE).await?;
    // A reset makes it ready, too.
    if server.is_reset() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(server) }
}

/// Writes the header. The connection is new, so the send buffer takes it at once.
async fn write(server: &End, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        server.stream.ready(Interest::WRITABLE).await?;
        match server.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{future::ready, sync::Arc};

    use socket2::SockRef;
    use tokio::{io::AsyncReadExt, join, net::TcpListener};

    use super::*;
    use crate::{agents::Wanted, core::backends::address::AgentAddress, files::Files};

    async fn dial_socket(to: SocketAddr, header: &[u8]) -> io::Result<End> {
        dial(&Agents::none(), &Address::Socket(to), SocketAddr::from(([127, 0, 0, 1], 9)), header).await
    }

    #[tokio::test]
    async fn a_connection_that_nobody_waits_for_any_more_ends_by_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        // Polled once, the connection is complete for the kernel, and the runtime does not know yet.
        tokio::select! {
            biased;
            result = dial_socket(to, b"") => panic!("{result:?}"),
            () = ready(()) => {}
        }
        let (mut server, _) = listener.accept().await.expect("a connection");
        let end = server.read(&mut [0]).await.expect_err("no end of data");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        // The same with one that was answered at the same moment as the winner of a race.
        drop(dial_socket(to, b"").await.expect("connects"));
        let (mut server, _) = listener.accept().await.expect("a connection");
        let end = server.read(&mut [0]).await.expect_err("no end of data");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_connection_whose_session_ends_well_ends_by_the_end_of_data() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connected = dial_socket(listener.local_addr().expect("an address"), b"x").await.expect("connects");
        connected.clean.set(true);
        drop(connected);
        let (mut server, _) = listener.accept().await.expect("a connection");
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.expect("the end of data");
        assert_eq!(all, b"x");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_unsent_bytes_of_a_new_connection_are_not_bounded_yet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = dial_socket(listener.local_addr().expect("an address"), b"x").await.expect("connects");
        let bound = SockRef::from(&server.stream).tcp_notsent_lowat().expect("an option");
        assert_eq!((bound, server.is_bounded.get()), (0, false), "most sessions end before that could matter");
    }

    #[tokio::test]
    async fn a_new_connection_delays_nothing_from_the_second_write_on_or_if_the_first_is_large() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        let is_prompt = |server: &End| SockRef::from(&server.stream).tcp_nodelay().expect("an option");
        let server = dial_socket(to, b"").await.expect("connects");
        server.try_write(b"first").expect("room");
        assert!(!is_prompt(&server), "there is nothing to wait for");
        server.try_write(b"second").expect("room");
        assert!(is_prompt(&server));
        let server = dial_socket(to, b"header").await.expect("connects");
        server.try_write(b"first").expect("room");
        assert!(is_prompt(&server), "it follows the header");
        let server = dial_socket(to, b"").await.expect("connects");
        server.try_write(&[7; 2000]).expect("room");
        assert!(is_prompt(&server), "its end follows its beginning");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        drop(listener);
        assert_eq!(dial_socket(to, b"").await.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_connection_to_an_agent_takes_the_first_bytes_at_once() {
        let (agents, _door, mut asked) = Agents::served();
        let [uid, agent, instance, host] = ["u", "infra/home", "pi4", "127.0.0.1"].map(Arc::<str>::from);
        let to = Address::Agent(Arc::new(AgentAddress { uid, agent, instance, host, port: 80 }));
        let files = Arc::new(Files::new(1));
        let answer = async {
            let question = asked.recv().await.expect("a question");
            let Wanted::Stream(reply) = question.wanted else { panic!("no connection is asked for") };
            let (worker, far) = Link::pair(files.take(1).expect("room")).expect("sockets");
            reply.send(Ok(worker)).expect("somebody waits");
            far
        };
        let client = SocketAddr::from(([127, 0, 0, 1], 9));
        let (server, _far) = join!(dial(&agents, &to, client, b""), answer);
        let server = server.expect("connects");
        assert_eq!(server.stream.try_write(b"first").expect("room"), 5);
    }
}
