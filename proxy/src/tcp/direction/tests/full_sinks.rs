//! Streams whose sinks are full: they share the budget of pipes, and all of their bytes arrive.
#![allow(clippy::expect_used, reason = "a test that cannot continue panics")]

use std::{io::ErrorKind, net::Shutdown};

use tokio::task::yield_now;

use super::{
    schedules::{BYTES, CHUNK, SINK, read_on},
    *,
};

/// Streams that have a pipe at once, with the default budget.
const PIPES: usize = 24;

/// A stream whose server reads nothing, and how many bytes its client has sent: those of `BYTES` from `start` on.
struct Full {
    bed: Bed,
    start: usize,
    sent: usize,
}

impl Full {
    /// Sends until the sink is full.
    async fn fill(mut bed: Bed, start: usize) -> Self {
        bed.client.set_nonblocking(true).expect("an option");
        SockRef::from(&bed.to.stream).set_send_buffer_size(SINK).expect("an option");
        let mut sent = 0;
        while !bed.direction.blocked {
            match bed.client.write(&BYTES[start + sent..][..CHUNK]) {
                Ok(written) => sent += written,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let Bed { worker, direction, from, to, .. } = &mut bed;
            let (worker, ends, limit) = (&**worker, (&*from, &*to), Bucket::default());
            let polled = poll_fn(|cx| Poll::Ready(direction.poll(cx, worker, &limit, ends, &|_| ())));
            assert!(polled.await.is_pending(), "nobody has ended");
            yield_now().await;
        }
        Self { bed, start, sent }
    }

    /// Ends the client, and has the server read everything.
    async fn arrives(self) {
        let Self { bed, start, sent } = self;
        let Bed { worker, mut direction, client, from, to, server } = bed;
        client.shutdown(Shutdown::Write).expect("connected");
        let reader = read_on(server);
        let limit = Bucket::default();
        let ends = poll_fn(|cx| direction.poll(cx, &worker, &limit, (&from, &to), &|_| ()));
        timeout(PATIENCE, ends).await.expect("the end is passed on");
        assert!(direction.phase == Phase::Finished && direction.pipe().is_none());
        let all = reader.join().expect("no panic").expect("bytes and a FIN");
        assert!(all == BYTES[start..start + sent], "other bytes than were sent");
    }
}

#[tokio::test]
async fn streams_with_full_sinks_share_the_budget_and_lose_nothing() {
    let worker = Bed::streaming().worker;
    let pipes = worker.process.pipes.clone();
    let all = async {
        let mut streams = Vec::new();
        // The last one finds no pipe.
        for stream in 0..=PIPES {
            streams.push(Full::fill(Bed::on(worker.clone()), 1000 * stream).await);
        }
        let filled: Vec<(usize, usize)> = streams
            .iter()
            .filter_map(|stream| stream.bed.direction.pipe())
            .map(|(pipe, left)| (pipe.pipe().size, *left))
            .collect();
        assert!(filled.iter().all(|(size, left)| (1..=*size).contains(left)), "{filled:?}");
        assert_eq!((filled.len(), pipes.count()), (PIPES, PIPES));
        assert_eq!((filled[0].0, filled[PIPES - 1].0), (1 << 20, 64 << 10));
        assert_eq!(filled.iter().map(|(size, _)| size).sum::<usize>(), pipes.usage().1);
        assert_eq!((pipes.spliced(), NoPipe::ALL.map(|why| pipes.copied(why))), (PIPES as u64, [1, 0, 0]));
        for stream in streams {
            stream.arrives().await;
        }
        assert!(pipes.usage().0 <= pipes.usage().1);
    };
    let all = async {
        tokio::select! { () = all => {}, () = worker.turns.give() => {} }
    };
    timeout(4 * PATIENCE, all).await.expect("the bytes arrive");
}
