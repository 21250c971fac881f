//! Panics in the intake of messages.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use durable::intake::Intake;
use tokio::task::yield_now;

use super::*;

fn send_datagram(to: &OsSocket) {
    let OsSocket::Udp(to) = to else { panic!("it takes no datagrams") };
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.send_to(b"m", to.local_addr().expect("it is bound")).expect("it is sent");
}

// D12
#[tokio::test]
async fn an_intake_that_panics_is_counted_and_told_and_takes_what_comes_then() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let shared = shared(disk());
    let test = async {
        let mut log = log(free(), folder.path(), &process, &wake);
        log.run(&shared, &process);
        let mut taker = log.taker().expect("it runs");
        let is_first = AtomicBool::new(true);
        taker.intake = Intake::guarded(move |_| {
            assert!(!is_first.swap(false, Relaxed), "as the test wants");
            true
        });
        let (intake, kept) = (taker.intake.clone(), store(&taker).clone());
        let socket = with_datagrams(1);
        let task = spawn_local(taker.take(socket.clone(), Rc::default(), id("l"), process.clone()));
        let second = async {
            // It would be lost, too, if it were read with the first one.
            while intake.figures().lost == 0 {
                yield_now().await;
            }
            send_datagram(&socket);
            // One was there before.
            while kept.figures().backlog() < 2 {
                yield_now().await;
            }
        };
        timeout(SOON, second).await.expect("it begins again");
        log.look(&process).await;
        let seen = shared.counters.durable().expect("it was looked at");
        assert_eq!((seen.panics, intake.figures().lost, seen.backlog), (1, 1, 2));
        let told = process.log.recent();
        assert!(told.iter().any(|it| it.subject == "ns/f/l" && it.message.contains("panicked 1")), "{told:?}");
        assert!(!task.is_finished() && process.lives.died().is_empty(), "it keeps running, and so do others");
        task.abort();
    };
    LocalSet::new().run_until(test).await;
}
