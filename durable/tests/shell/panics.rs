//! Connections whose task panics.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use durable::intake::{Framing, Hold, Intake, Protocol};
use tokio::io::AsyncWriteExt;

use crate::port::{Port, settings_of};

/// Panics when the connection that has it ends.
struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as the test wants");
    }
}

#[tokio::test]
async fn a_connection_that_panics_is_counted_and_others_are_served() {
    let is_first = AtomicBool::new(true);
    let intake = Intake::default().holding(move |_: IpAddr| {
        let held: Hold = if is_first.swap(false, Relaxed) { Box::new(Panics) } else { Box::new(()) };
        Some(held)
    });
    let port = Port { intake, ..Port::new().await };
    let test = async {
        drop(port.connect().await);
        port.until(|figures| figures.panics == 1 && figures.connections == 0).await;
        let mut sender = port.connect().await;
        sender.write_all(b"one\n").await.expect("it is read");
        assert_eq!(port.texts(1).await, ["one"]);
        assert_eq!(port.intake.figures().panics, 1);
    };
    port.serve(settings_of(Protocol::Framed(Framing::Newline)), test).await;
}
