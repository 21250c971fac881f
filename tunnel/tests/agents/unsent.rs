//! How much of a carrier waits in the kernel.

use std::{cell::RefCell, io, rc::Rc};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::spawn_local,
};
use tunnel::{
    agent::{Connector, run},
    endpoint::{Authenticator, listen},
};
use tunnel_core::{
    hello::Boot,
    identity::{AgentIdentity, Dial},
};

use super::world::{Plain, Server, address, settings, within};

/// Notes the bound of each carrier, by its end.
#[derive(Clone, Default)]
struct Noted(Rc<RefCell<Vec<(&'static str, u32)>>>);

impl Noted {
    fn note(&self, end: &'static str, tcp: &TcpStream) {
        let bound = SockRef::from(tcp).tcp_notsent_lowat().expect("an option");
        self.0.borrow_mut().push((end, bound));
    }
}

impl Connector for Noted {
    type Io = TcpStream;

    async fn secure(&self, tcp: TcpStream, dial: &Dial) -> io::Result<TcpStream> {
        self.note("agent", &tcp);
        Plain.secure(tcp, dial).await
    }
}

impl Authenticator for Noted {
    type Io = TcpStream;

    async fn authenticate(&self, tcp: TcpStream) -> io::Result<Option<(AgentIdentity, TcpStream)>> {
        self.note("endpoint", &tcp);
        Plain.authenticate(tcp).await
    }
}

#[tokio::test]
async fn both_ends_of_a_carrier_leave_little_unsent_in_the_kernel() {
    within(async {
        let (server, noted) = (Server::start(1).await, Noted::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        spawn_local(listen(server.endpoint.clone(), listener, noted.clone()));
        let (_stop, stopped) = watch::channel(false);
        let told = settings(address(at), None, "pi4", &["127.0.0.0/8:1-65535"]);
        spawn_local(run(told, noted.clone(), Boot([1; 16]), stopped));
        server.has(1).await;
        let mut noted = noted.0.take();
        noted.sort_unstable();
        assert_eq!(noted, [("agent", 128 * 1024), ("endpoint", 128 * 1024)]);
    })
    .await;
}
