//! Connections that are meant for another proxy of the gateway.

use tunnel::{agent::Connector, identity::tls::enrolment_config};
use tunnel_core::identity::{Dial, Fingerprint};

use super::*;

/// The agent, and other proxies of a gateway.
pub(super) fn told(suspended: bool, peers: &[(&str, [u8; 4])]) -> Arc<ForTunnels> {
    let agents = BTreeMap::from([(UID.to_owned(), home_agent(suspended))]);
    let peers = peers.iter().map(|(id, ip)| ((*id).to_owned(), (*ip).into())).collect();
    Arc::new(ForTunnels { agents, peers, ..ForTunnels::default() })
}

#[allow(clippy::expect_used, reason = "a test helper")]
fn id(text: &str) -> EndpointId {
    EndpointId::new(text).expect("an id")
}

#[tokio::test]
async fn a_connection_for_another_proxy_is_handed_over_on_the_port_of_the_tunnels() {
    within(async {
        let bed = Bed::start_as(Some(id("0f3a")), desk().0);
        let other = TcpListener::bind(("127.0.0.2", bed.address.port())).await.expect("the same port");
        let peers = [("0f3a", [127, 0, 0, 3]), ("77bc", [127, 0, 0, 2]), ("no id", [127, 0, 0, 4])];
        bed.configured.as_ref().expect("a sender").send_replace(told(false, &peers));
        let address = bed.address;
        let tls = enrolment_config(Fingerprint::of(b"a root"), system_clock()).expect("usable");
        spawn_local(async move {
            let (tls, dial) = (AgentTls::new(tls), Dial::Endpoint(id("77bc")));
            loop {
                let tcp = TcpStream::connect(address).await.expect("a connection");
                // It is closed until the thread has the table.
                let _ = tls.secure(tcp, &dial).await;
            }
        });
        let (mut handed, _) = other.accept().await.expect("a connection");
        let mut start = [0; 17];
        handed.read_exact(&mut start).await.expect("bytes");
        assert!(start.starts_with(b"\0portlane-handed") && start[16] == 22, "{start:?}");
    })
    .await;
}

#[test]
fn other_proxies_listen_on_the_same_port_and_what_is_no_id_names_none() {
    let peers = [("77bc", [10, 0, 0, 2]), ("No id", [10, 0, 0, 3])];
    let expected = BTreeMap::from([(id("77bc"), SocketAddr::from(([10, 0, 0, 2], 7443)))]);
    assert_eq!(endpoints(&told(false, &peers).peers, 7443), expected);
}
