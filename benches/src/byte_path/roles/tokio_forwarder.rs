//! A forwarder as a tutorial writes it: tokio, `copy_bidirectional`, and a socket for each UDP flow, on one thread.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    runtime::Builder,
    task::spawn,
    time::timeout,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Time without a datagram from the server after which a flow ends.
const FLOW_IDLE: Duration = Duration::from_secs(60);

type Flows = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

/// Forwards TCP ports and one UDP port, (from, to) each, until the process ends.
pub(super) fn run(tcp: &[(u16, u16)], udp: (u16, u16)) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (from, to) in tcp {
            let socket = TcpSocket::new_v4().expect("socket");
            socket.set_reuseaddr(true).expect("option");
            socket.bind(local(*from)).expect("bind");
            spawn(accept(socket.listen(BACKLOG).expect("listen"), local(*to)));
        }
        let socket = UdpSocket::bind(local(udp.0)).await.expect("bind");
        datagrams(Arc::new(socket), local(udp.1)).await;
    });
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn accept(listener: TcpListener, to: SocketAddr) {
    loop {
        // Without files there is nothing to do but to try again.
        let Ok((client, _)) = listener.accept().await else { continue };
        spawn(async move {
            let _ = forward(client, to).await;
        });
    }
}

async fn forward(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn datagrams(socket: Arc<UdpSocket>, to: SocketAddr) {
    let flows = Flows::default();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let known = flows.lock().expect("unpoisoned").get(&client).cloned();
        let flow = match known {
            Some(flow) => flow,
            None => match open(&socket, client, to, &flows).await {
                Ok(flow) => flow,
                Err(_) => continue,
            },
        };
        let _ = flow.send(&buffer[..length]).await;
    }
}

/// Opens the flow of a client, whose answers go back to it.
async fn open(
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    to: SocketAddr,
    flows: &Flows,
) -> io::Result<Arc<UdpSocket>> {
    let flow = Arc::new(UdpSocket::bind(local(0)).await?);
    flow.connect(to).await?;
    flows.lock().expect("unpoisoned").insert(client, Arc::clone(&flow));
    let (own, front, flows) = (Arc::clone(&flow), Arc::clone(socket), Arc::clone(flows));
    spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(Ok(length)) = timeout(FLOW_IDLE, own.recv(&mut buffer)).await {
            let _ = front.send_to(&buffer[..length], client).await;
        }
        flows.lock().expect("unpoisoned").remove(&client);
    });
    Ok(flow)
}
