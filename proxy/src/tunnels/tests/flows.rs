//! Workers' flows to targets behind a real agent.

use std::{collections::BTreeSet, io};

use tokio::net::UdpSocket;

use super::{Bed, CLIENT, pattern, to, within};
use crate::{agents::FlowEnd, net};

/// Begins a flow as a worker does.
#[allow(clippy::expect_used, reason = "a test helper")]
fn begin(bed: &Bed, port: u16) -> FlowEnd {
    let to = to(port, "pi4");
    let agent = to.agent().expect("behind an agent");
    bed.agents.open_flow(agent, CLIENT.parse().expect("an address")).expect("a flow")
}

#[tokio::test]
async fn datagrams_of_every_length_pass_both_ways_from_one_port_and_the_first_one_waits_for_no_answer() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        let target = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let flow = begin(&bed, target.local_addr().expect("an address").port());
        let (mut buffer, mut sources) = (vec![0; 65_536], BTreeSet::new());
        for length in [0, 1, 1200, 65_507] {
            let datagram = pattern(3, length);
            assert_eq!(flow.send(&datagram), Some(0));
            let (read, from) = target.recv_from(&mut buffer).await.expect("a datagram");
            assert!(buffer[..read] == *datagram, "{length} bytes to the target");
            target.send_to(&datagram, from).await.expect("sent");
            assert!(flow.recv().await.as_deref() == Some(&*datagram), "{length} bytes back");
            sources.insert(from);
        }
        assert_eq!(sources.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_flow_that_the_agent_does_not_allow_ends_with_the_cause_and_the_endpoint_is_not_at_fault() {
    within(async {
        let mut bed = Bed::start();
        let _agent = bed.agent().await;
        // The server lists this port, but the agent does not.
        let flow = begin(&bed, 53);
        assert_eq!(flow.send(b"early"), Some(0));
        assert_eq!(flow.recv().await, None);
        let error = flow.failure().expect("a cause");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("--allow udp/127.0.0.1:53"), "{error}");
        assert!(!net::is_of_the_endpoint(&error));
    })
    .await;
}
