//! Requests for streams, and their answers.

use std::io::ErrorKind;

use tokio::io::AsyncWriteExt;
use tunnel::OpenError;
use tunnel_core::{Limits, Protocol, Reason, Refusal};

use super::bytes::read_out;
use super::pair::{Pair, request, settle, stream, within};

#[tokio::test(start_paused = true)]
async fn a_refusal_says_why() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let refusal = Refusal { reason: Reason::NotAllowed, detail: "db:1 is not on the list".to_owned() };
        let refuse = async {
            let incoming = pair.dialler.accept().await.expect("a request");
            assert_eq!(incoming.request(), &request(Protocol::Tcp, 1));
            incoming.refuse(refusal.clone());
        };
        let (opened, ()) = tokio::join!(pair.listener.open(request(Protocol::Tcp, 1)), refuse);
        assert_eq!(opened.err(), Some(OpenError::Refused(refusal)));

        let forget = async { drop(pair.dialler.accept().await.expect("a request")) };
        let (opened, ()) = tokio::join!(pair.listener.open(request(Protocol::Tcp, 1)), forget);
        let is_refused = matches!(&opened, Err(OpenError::Refused(refusal)) if refusal.reason == Reason::Other);
        assert!(is_refused, "{opened:?}");
        pair.drained().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_carrier() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let connect = async {
            settle().await;
            pair.connect()
        };
        let ((mut near, mut far), _carrier) = tokio::join!(stream(&pair.dialler, &pair.listener), connect);
        near.write_all(b"here").await.expect("a write");
        near.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut far).await, (b"here".to_vec(), None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_a_stream_that_is_reset() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let incoming = tokio::select! {
            opened = pair.dialler.open(request(Protocol::Tcp, 1)) => panic!("nobody has answered: {opened:?}"),
            incoming = pair.listener.accept() => incoming.expect("a request"),
        };
        settle().await;
        let mut stream = incoming.accept();
        assert_eq!(read_out(&mut stream).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
        pair.drained().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_of_what_is_dropped() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let mut carrier = pair.connect();
        let (mut near, far) = stream(&pair.dialler, &pair.listener).await;
        near.write_all(b"unread").await.expect("a write");
        let flow = async { pair.listener.accept().await.expect("a request").accept_flow() };
        let flows = tokio::join!(pair.dialler.open_flow(request(Protocol::Udp, 53)), flow);
        let incoming = tokio::select! {
            opened = pair.listener.open(request(Protocol::Tcp, 1)) => panic!("nobody has answered: {opened:?}"),
            incoming = pair.dialler.accept() => incoming,
        };
        assert!(flows.0.is_ok() && incoming.is_some());
        carrier.cut().await;
        drop((near, far, flows, incoming));
        let _carrier = pair.connect();
        pair.drained().await;
    })
    .await;
}
