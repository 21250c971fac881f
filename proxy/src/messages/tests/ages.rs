//! How long messages have waited.

use tokio::task::yield_now;

use super::*;
use crate::messages::generations::{Generations, close};

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_message_younger() {
    let home = tempfile::tempdir().expect("a folder");
    let opened = folder::open(home.path(), 1, &settings::disk(&disk(), 16 << 20)).expect("nobody has it");
    let test = async {
        let mut logs = Generations::new(opened, &process_with(None));
        assert_eq!(logs.ages(100, 3_600_000).oldest, 0);
        let store = logs.present().stores().next().expect("a lane").clone();
        let source = Arc::from(&b"192.0.2.1:514"[..]);
        let message = Incoming { source, received_millis: 3_600_000, payload: vec![b'm'] };
        store.append_and_sync(vec![message]).await.expect("room").synced().await.expect("the disk is well");
        while store.figures().backlog() == 0 {
            yield_now().await;
        }
        assert_eq!(logs.ages(101, 0).oldest, 0);
        let ages = logs.ages(160, 0);
        assert_eq!((ages.sending, ages.oldest), (vec![59], 59));
        close(logs.handles()).await;
        let again = folder::open(home.path(), 1, &settings::disk(&disk(), 16 << 20)).expect("nobody has it");
        let mut logs = Generations::new(again, &process_with(None));
        assert_eq!([200, 207].map(|now| logs.ages(now, 0).oldest), [0, 7], "it was there");
        while logs.figures().oldest_received_millis.is_none() {
            yield_now().await;
        }
        assert_eq!(logs.ages(208, 3_660_000).oldest, 60, "the clock says more than the process has seen");
        close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}
