//! What slow readers cost.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tunnel_core::{Limits, Pool, Session};

use super::bytes::{exchange_all, pattern, read_out};
use super::pair::{Pair, settle, stream, within};

/// The window of a stream whose reader has never read.
const FIRST_WINDOW: u64 = 64 * 1024;

#[tokio::test(start_paused = true)]
async fn one_reader_that_never_reads_holds_up_no_other() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let (mut near, _far) = stream(&pair.dialler, &pair.listener).await;
        let writer = spawn_local(async move { near.write_all(&vec![0; 1024 * 1024]).await });
        exchange_all(&pair, 1..=63, 100_000).await;
        settle().await;
        assert!(!writer.is_finished(), "a full window is no failure");
        for tunnel in [&pair.dialler, &pair.listener] {
            let (promised, kept) = tunnel.look(Session::memory);
            assert!(tunnel.look(Session::len) == 1 && promised <= FIRST_WINDOW && kept <= FIRST_WINDOW);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_streams_together_keep_to_the_memory_of_the_session() {
    const STREAMS: u64 = 8;
    const BYTES: usize = 100_000;
    within(60, async {
        let limits = Limits { memory: 256 * 1024, ..Limits::default() };
        let pair = Pair::new(&limits);
        let _carrier = pair.connect();
        let written = Rc::new(Cell::new(0));
        let mut readers = Vec::new();
        for seed in 0..STREAMS {
            let (mut near, far) = stream(&pair.dialler, &pair.listener).await;
            readers.push(far);
            let written = Rc::clone(&written);
            spawn_local(async move {
                for part in pattern(seed, BYTES).chunks(1000) {
                    near.write_all(part).await.expect("a write");
                    written.set(written.get() + part.len());
                }
                near.shutdown().await.expect("an end");
                read_out(&mut near).await;
            });
        }
        settle().await;
        let (promised, kept) = (pair.listener.look(Session::memory).0, pair.dialler.look(Session::memory).1);
        assert!(promised <= limits.memory && kept <= limits.memory, "{promised} {kept}");
        assert!(written.get() < BYTES * readers.len(), "writers wait for readers");
        for (seed, mut far) in (0..).zip(readers) {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.expect("all bytes");
            assert!(bytes == pattern(seed, BYTES), "what is read is what was written");
        }
        pair.drained().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sessions_that_share_memory_keep_to_it_and_lose_no_byte() {
    const MEMORY: u64 = 1024 * 1024;
    const BYTES: usize = 500_000;
    within(60, async {
        let pool = Pool::new(MEMORY, 8);
        let pairs: Vec<Pair> = (0..4).map(|_| Pair::sharing(&pool)).collect();
        let _carriers: Vec<_> = pairs.iter().map(Pair::connect).collect();
        let mut readers = Vec::new();
        for (seed, pair) in (0..).zip(&pairs) {
            let (mut near, far) = stream(&pair.dialler, &pair.listener).await;
            readers.push(far);
            spawn_local(async move {
                near.write_all(&pattern(seed, BYTES)).await.expect("a write");
                near.shutdown().await.expect("an end");
                read_out(&mut near).await;
            });
        }
        settle().await;
        let tunnels = pairs.iter().flat_map(|pair| [&pair.dialler, &pair.listener]);
        let memory = tunnels.map(|tunnel| tunnel.look(Session::memory));
        let all: u64 = memory.map(|(promised, kept)| promised + kept).sum();
        assert!(all <= MEMORY && pool.used() > 0 && pool.used() <= pool.most(), "{all} {pool:?}");
        for (seed, mut far) in (0..).zip(readers) {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.expect("all bytes");
            assert!(bytes == pattern(seed, BYTES), "what is read is what was written");
        }
        for pair in &pairs {
            pair.drained().await;
        }
        // Heartbeats free the empty blocks.
        sleep(Duration::from_secs(20)).await;
        assert_eq!(pool.used(), 0);
    })
    .await;
}
