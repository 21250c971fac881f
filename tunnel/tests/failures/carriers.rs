//! Carriers through a bad network, on a paused clock.

use std::cell::Cell;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};
use tunnel::{CarryEnd, Hint};
use tunnel_core::{Limits, Session};

use super::bytes::{exchange_all, pattern, read_out};
use super::pair::{Pair, stream, within};
use super::relay::{Impairment, QUICK, Relay};

/// The bytes that wait at each end of the network.
const BUFFER: usize = 8 * 1024;
const FAR: Impairment = Impairment { delay: Duration::from_millis(120), ..QUICK };

struct Carrier {
    relay: Relay,
    task: JoinHandle<(CarryEnd, CarryEnd)>,
}

fn connect(pair: &Pair, epoch: u64, impairment: Impairment) -> Carrier {
    let ((near, near_side), (far_side, far)) = (duplex(BUFFER), duplex(BUFFER));
    let relay = Relay::start(near_side, far_side, impairment);
    let (dialler, listener) = (pair.dialler.clone(), pair.listener.clone());
    let task = spawn_local(async move { tokio::join!(dialler.carry(epoch, near), listener.carry(epoch, far)) });
    Carrier { relay, task }
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_a_delay_of_120_ms_is_held_back_by_its_window_and_the_window_grows() {
    const PART: usize = 1024 * 1024;
    const PARTS: u128 = 64;
    within(3600, async {
        let limits = Limits::default();
        let pair = Pair::new(&limits);
        let carrier = connect(&pair, 1, FAR);
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        let part = pattern(1, PART);
        let since = Instant::now();
        let write = async {
            let mut hash = Sha256::new();
            for _ in 0..PARTS {
                near.write_all(&part).await.expect("a full window is no failure");
                hash.update(&part);
            }
            near.shutdown().await.expect("an end");
            hash.finalize()
        };
        let read = async {
            let (mut hash, mut bytes) = (Sha256::new(), vec![0; PART]);
            loop {
                let count = far.read(&mut bytes).await.expect("all bytes");
                if count == 0 {
                    return hash.finalize();
                }
                hash.update(&bytes[..count]);
            }
        };
        let look = async {
            for _ in 0..100_000 {
                sleep(Duration::from_millis(10)).await;
                let (promised, kept) = (pair.listener.look(Session::memory).0, pair.dialler.look(Session::memory).1);
                assert!(promised <= limits.window && kept <= limits.window, "{promised} promised, {kept} kept");
            }
        };
        let (written, read) = tokio::select! {
            hashes = async { tokio::join!(write, read) } => hashes,
            () = look => panic!("the stream makes no progress"),
        };
        assert_eq!(written, read, "what is read is what was written");
        let round_trips = since.elapsed().as_millis() / (2 * FAR.delay).as_millis();
        assert!(round_trips < PARTS, "{round_trips} round trips for {PARTS} MiB: that is less than 1 MiB for each");
        assert!(!carrier.task.is_finished(), "one carrier was enough");
        assert_eq!(pair.dialler.look(|session: &Session| session.counters().resent_bytes), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sixty_four_streams_are_whole_both_ways_over_carriers_that_are_cut_every_second_for_a_minute() {
    const LAST: u64 = 300;
    /// At half a mebibyte a second, moving all bytes takes a minute, without the resent ones.
    const BYTES: usize = 480_000;
    let slow = Impairment { delay: Duration::from_millis(20), speed: 500, part: 4096 };
    within(3600, async {
        let pair = Pair::new(&Limits::default());
        let cuts = Cell::new(0);
        let network = async {
            for epoch in 1..LAST {
                let carrier = connect(&pair, epoch, slow);
                sleep(Duration::from_secs(1)).await;
                carrier.relay.cut();
                carrier.task.await.expect("both ends see it");
                cuts.set(epoch);
            }
        };
        tokio::select! {
            () = exchange_all(&pair, 1..=64, BYTES) => {}
            () = network => panic!("the streams make no progress"),
        }
        assert!(cuts.get() >= 60, "{} cuts", cuts.get());
        let _carrier = connect(&pair, LAST, slow);
        pair.drained().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_half_open_carrier_holds_streams_up_for_no_longer_than_it_takes_to_find_it_dead() {
    within(3600, async {
        for direction in [0, 1] {
            let limits = Limits::default();
            let pair = Pair::new(&limits);
            let mut old = connect(&pair, 1, FAR);
            let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
            old.relay.freeze(direction, true);
            let since = Instant::now();
            near.write_all(b"once ").await.expect("a write");
            far.write_all(b"once ").await.expect("a write");
            // An agent dials when the carrier is silent, or has ended.
            tokio::select! {
                hint = pair.dialler.hint() => assert_eq!(hint, Hint::Suspect),
                ends = &mut old.task => assert!(matches!(ends, Ok((_, CarryEnd::Silent))), "{ends:?}"),
            }
            let _new = connect(&pair, 2, FAR);
            let (mut word, mut answer) = ([0; 5], [0; 5]);
            let read = async { tokio::join!(far.read_exact(&mut word), near.read_exact(&mut answer)) };
            assert!(matches!(read.await, (Ok(5), Ok(5))));
            assert_eq!((&word, &answer), (b"once ", b"once "));
            let longest = limits.dead_after + Duration::from_secs(2);
            assert!(since.elapsed() <= longest, "{:?}, direction {direction}", since.elapsed());
            old.relay.freeze(direction, false);
            for stream in [&mut near, &mut far] {
                stream.write_all(b"only").await.expect("a write");
                stream.shutdown().await.expect("an end");
            }
            for stream in [&mut near, &mut far] {
                assert_eq!(read_out(stream).await, (b"only".to_vec(), None), "direction {direction}");
            }
            pair.drained().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_frozen_for_less_than_the_grace_period_keeps_its_streams() {
    within(3600, async {
        let limits = Limits::default();
        let pair = Pair::new(&limits);
        let mut carrier = connect(&pair, 1, FAR);
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        let since = Instant::now();
        for epoch in 2..=5 {
            // Its kernel accepts connections, but the process does not answer.
            carrier.relay.freeze(0, true);
            carrier.relay.freeze(1, true);
            near.write_all(b"x").await.expect("a write");
            carrier.task.await.expect("it is found dead");
            carrier = connect(&pair, epoch, FAR);
        }
        assert!(since.elapsed() >= limits.dead_after * 3 && since.elapsed() < limits.grace, "{:?}", since.elapsed());
        near.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut far).await, (b"xxxx".to_vec(), None));
        far.write_all(b"still here").await.expect("a write");
        far.shutdown().await.expect("an end");
        assert_eq!(read_out(&mut near).await, (b"still here".to_vec(), None));
        pair.drained().await;
    })
    .await;
}
