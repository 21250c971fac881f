//! Streams that are given up.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::{CarryEnd, OpenError};
use tunnel_core::{Limits, Loss, NotOpened, Protocol};

use super::bytes::read_out;
use super::pair::{Pair, request, stream, within};

#[tokio::test(start_paused = true)]
async fn a_reset_of_either_end_comes_after_the_bytes_with_and_without_a_carrier() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let mut carrier = pair.connect();
        for is_cut in [false, true] {
            for is_dialler in [false, true] {
                let (near, far) = stream(&pair.dialler, &pair.listener).await;
                let (mut loser, mut reader) = if is_dialler { (near, far) } else { (far, near) };
                if is_cut {
                    carrier.cut().await;
                }
                loser.write_all(b"last words").await.expect("a write");
                loser.reset();
                if is_cut {
                    carrier = pair.connect();
                }
                assert_eq!(read_out(&mut reader).await, (b"last words".to_vec(), Some(ErrorKind::ConnectionReset)));
                let written = reader.write(b"too late").await.map_err(|error| error.kind());
                assert_eq!(written, Err(ErrorKind::ConnectionReset));
                pair.drained().await;
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_hears_of_a_reset_while_bytes_are_left_to_read() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let _carrier = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        far.write_all(b"unread").await.expect("a write");
        drop(far);
        let bytes = vec![0; 1024 * 1024];
        let error = near.write_all(&bytes).await.expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(read_out(&mut near).await, (b"unread".to_vec(), Some(ErrorKind::ConnectionReset)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_carrier_for_the_grace_period_streams_end_by_a_reset() {
    within(600, async {
        let pair = Pair::new(&Limits::default());
        let mut carrier = pair.connect();
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        far.write_all(b"before").await.expect("a write");
        let mut word = [0; 3];
        near.read_exact(&mut word).await.expect("bytes");
        carrier.cut().await;
        let (rest, late) = tokio::join!(read_out(&mut near), pair.dialler.open(request(Protocol::Tcp, 1)));
        assert_eq!(rest, (b"ore".to_vec(), Some(ErrorKind::ConnectionReset)));
        assert_eq!(late.err(), Some(OpenError::Lost(Loss::GraceExpired)));
        assert_eq!(read_out(&mut far).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
        for tunnel in [&pair.dialler, &pair.listener] {
            assert!(tunnel.accept().await.is_none());
            let open = tunnel.open(request(Protocol::Tcp, 1)).await;
            assert_eq!(open.err(), Some(OpenError::NotOpened(NotOpened::Closed)));
        }
        let ends = pair.connect().ended().await;
        assert!(matches!(ends, (CarryEnd::Lost(_), CarryEnd::Lost(_))), "{ends:?}");
        pair.drained().await;
        for run in pair.runs {
            assert_eq!(run.await.expect("it ends"), Loss::GraceExpired);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_closed_ends_its_carrier_and_its_streams() {
    within(60, async {
        let pair = Pair::new(&Limits::default());
        let carrier = pair.connect();
        let (mut near, _far) = stream(&pair.dialler, &pair.listener).await;
        pair.dialler.lose(Loss::Closed);
        assert_eq!(read_out(&mut near).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
        let (end, _) = carrier.ended().await;
        assert!(matches!(end, CarryEnd::Lost(Loss::Closed)), "{end:?}");
    })
    .await;
}
