//! Flows of datagrams through a tunnel.

use tunnel_core::{Limits, MAX_DATAGRAM, Protocol, Session};

use super::bytes::pattern;
use super::pair::{Pair, request, within};

#[tokio::test(start_paused = true)]
async fn a_flow_goes_on_with_the_next_carrier_with_datagrams_of_every_length() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let mut carrier = pair.connect();
        let accept = async { pair.dialler.accept().await.expect("a request").accept_flow() };
        let (near, far) = tokio::join!(pair.listener.open_flow(request(Protocol::Udp, 53)), accept);
        let near = near.expect("a flow");
        for length in [0, 1, MAX_DATAGRAM, 1400, MAX_DATAGRAM] {
            let datagram = pattern(1, length);
            near.send(&datagram);
            assert!(far.recv().await.as_ref() == Some(&datagram), "{length} bytes to the target");
            far.send(&datagram);
            assert!(near.recv().await.as_ref() == Some(&datagram), "{length} bytes back");
            carrier.cut().await;
            carrier = pair.connect();
        }
        near.send(&vec![0; MAX_DATAGRAM + 1]);
        near.send(b"last");
        assert_eq!(far.recv().await, Some(b"last".to_vec()), "one that is too long is dropped, and not cut");
        assert_eq!(pair.listener.look(|session: &Session| session.counters().dropped_datagrams), 1);
        drop(near);
        assert_eq!(far.recv().await, None, "the flow has ended");
        drop(far);
        pair.drained().await;
    })
    .await;
}
