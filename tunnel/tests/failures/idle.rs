//! Carriers on which neither end has anything to send, on a paused clock.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    select,
    task::spawn_local,
    time::{sleep, timeout},
};
use tunnel_core::Limits;

use super::pair::{Pair, stream, within};

const MINUTE: Duration = Duration::from_secs(60);

/// A load balancer that ends a connection on which nothing has arrived for a minute.
async fn balance(mut near: DuplexStream, mut far: DuplexStream) {
    let (mut up, mut down) = ([0; 1024], [0; 1024]);
    loop {
        let moved = async {
            let moved: io::Result<usize> = select! {
                count = near.read(&mut up) => {
                    let count = count?;
                    far.write_all(&up[..count]).await.map(|()| count)
                }
                count = far.read(&mut down) => {
                    let count = count?;
                    near.write_all(&down[..count]).await.map(|()| count)
                }
            };
            moved
        };
        let Ok(Ok(1..)) = timeout(MINUTE, moved).await else { return };
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_carrier_outlives_a_load_balancer_that_ends_idle_connections() {
    within(3600, async {
        let pair = Pair::new(&Limits::default());
        let ((near_end, near_side), (far_side, far_end)) = (duplex(1024), duplex(1024));
        spawn_local(balance(near_side, far_side));
        let (dialler, listener) = (pair.dialler.clone(), pair.listener.clone());
        let carrier = spawn_local(async move { tokio::join!(dialler.carry(1, near_end), listener.carry(1, far_end)) });
        let (mut near, mut far) = stream(&pair.dialler, &pair.listener).await;
        sleep(MINUTE * 10).await;
        assert!(!carrier.is_finished(), "the carrier is never silent for a minute");
        near.write_all(b"after ten minutes").await.expect("written");
        let mut read = [0; 17];
        far.read_exact(&mut read).await.expect("read");
        assert_eq!(&read, b"after ten minutes");
    })
    .await;
}
