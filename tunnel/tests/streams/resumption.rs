//! Streams across carriers.

use std::cell::Cell;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tunnel::{CarryEnd, Hint, OpenError};
use tunnel_core::{HEADER, Kind, Limits, NotOpened, Protocol, Session};

use super::bytes::{exchange_all, read_out};
use super::pair::{Pair, request, settle, stream, within};

#[tokio::test(start_paused = true)]
async fn sixty_four_streams_are_whole_although_their_carrier_is_cut_again_and_again() {
    within(3600, async {
        let pair = Pair::new(&Limits::default());
        let carriers = Cell::new(0);
        let cuts = async {
            for nth in 1..5000 {
                carriers.set(nth);
                // Some carriers are too short for a frame; the others have room for one in both directions.
                let bytes = if nth % 4 == 0 { nth * 97 % 4000 } else { 48_000 + nth * 7919 % 30_000 };
                pair.connect_for(bytes).ended().await;
            }
        };
        tokio::select! {
            () = exchange_all(&pair, 1..=64, 40_000) => {}
            () = cuts => panic!("the streams make no progress"),
        }
        assert!(carriers.get() > 50, "{} carriers", carriers.get());
        let _carrier = pair.connect();
        pair.drained().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_far_end_that_never_says_what_it_has_received_is_closed_for_that() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let (near, mut far) = duplex(64 * 1024);
        let listener = pair.listener.clone();
        let carrier = spawn_local(async move { listener.carry(1, near).await });
        let mut resume = [0; HEADER];
        resume[0] = Kind::Resume as u8;
        // Without the flag that says that no entries follow.
        while far.write_all(&resume).await.is_ok() {
            settle().await;
        }
        let end = carrier.await.expect("no panic");
        assert!(matches!(end, CarryEnd::Unresumed), "{end:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_half_close_stays_a_half_close() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let mut carrier = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        near.write_all(b"question").await.expect("a write");
        near.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut far).await, (b"question".to_vec(), None));
        carrier.cut().await;
        let _carrier = pair.connect();
        far.write_all(b"answer").await.expect("the other direction continues");
        far.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut near).await, (b"answer".to_vec(), None));
        pair.drained().await;
        assert_eq!(read_out(&mut near).await, (Vec::new(), None), "an end stays an end");
        assert!(near.write_all(b"more").await.is_err(), "nothing can be written after the end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_thaws_late_adds_nothing() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let old = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        old.link.freeze();
        near.write_all(b"once ").await.expect("a write");
        settle().await;
        let _new = pair.connect();
        old.link.thaw();
        let ends = old.ended().await;
        assert!(matches!(ends, (CarryEnd::Replaced, CarryEnd::Replaced)), "{ends:?}");
        near.write_all(b"only").await.expect("a write");
        near.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut far).await, (b"once only".to_vec(), None));
        let late = pair.listener.carry(1, duplex(64).0).await;
        assert!(matches!(late, CarryEnd::Stale), "{late:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_carrier_is_suspected_and_then_ends() {
    within(60, async {
        let limits = Limits::default();
        let pair = Pair::new(&limits);
        let carrier = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        carrier.link.freeze();
        let since = Instant::now();
        near.write_all(b"late").await.expect("a write");
        assert_eq!(pair.dialler.hint().await, Hint::Suspect);
        assert!(since.elapsed() < limits.dead_after, "another carrier can be dialled before");
        let ends = carrier.ended().await;
        assert!(matches!(ends, (CarryEnd::Silent, CarryEnd::Silent | CarryEnd::Failed(_))), "{ends:?}");
        assert!(since.elapsed() < limits.dead_after + limits.heartbeat, "{:?}", since.elapsed());
        let _carrier = pair.connect();
        let mut word = [0; 4];
        far.read_exact(&mut word).await.expect("what was written before");
        assert_eq!(&word, b"late");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_goes_away_takes_no_new_streams_and_keeps_the_old() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        pair.listener.go_away();
        assert_eq!(pair.dialler.hint().await, Hint::GoAway);
        let refused = pair.dialler.open(request(Protocol::Tcp, 1)).await.err();
        assert_eq!(refused, Some(OpenError::NotOpened(NotOpened::Closed)));
        far.write_all(b"still").await.expect("a write");
        far.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut near).await, (b"still".to_vec(), None));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_something_else_ends_the_carrier_only() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let (near, mut far) = duplex(64 * 1024);
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("room");
        let end = pair.dialler.carry(1, near).await;
        assert!(matches!(end, CarryEnd::Violation(_)), "{end:?}");
        let (near, far) = duplex(64 * 1024);
        drop(far);
        let end = pair.dialler.carry(2, near).await;
        assert!(matches!(end, CarryEnd::Closed | CarryEnd::Failed(_)), "{end:?}");
        assert_eq!(pair.dialler.look(Session::lost), None);
    })
    .await;
}
