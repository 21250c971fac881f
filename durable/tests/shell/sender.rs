//! From one store to another over RELP, on loopback.

use durable::Sink;
use durable::intake::Protocol;
use tempfile::tempdir;

use crate::port::{Port, settings_of};
use crate::sinks::{Loopback, send};
use crate::world::{append, figures, messages, open, within};

#[tokio::test]
async fn a_backlog_is_delivered_in_order_though_the_sink_is_away_and_breaks_off() {
    let home = tempdir().expect("a folder");
    let store = open(home.path());
    within(append(&store, messages(0..30))).await;
    let port = Port::new().await;
    let dial = Loopback::new(port.address);
    dial.refusals.set(2);
    let test = Box::pin(async {
        let settings = settings_of(Protocol::Relp);
        // The connection breaks with the end of what serves it.
        port.serve(settings, async { port.store.wait_for(9).await.expect("it runs") }).await;
        append(&store, messages(30..40)).await;
        let all = async { drop(figures(&store, |figures| figures.cursor == 40).await) };
        port.serve(settings, all).await;
    });
    let reported = send(&store, Sink::Relp { window: 4 }, &dial, test).await;
    let texts = port.texts(40).await;
    assert!(texts.len() <= 40 + 4 * 2, "what comes twice is within the window: {texts:?}");
    let mut next = 0;
    for text in &texts {
        let id: u64 = text.trim_start_matches("message ").parse().expect("a number");
        assert!(id <= next, "message {next} is passed over: {texts:?}");
        next = next.max(id + 1);
    }
    assert_eq!((next, reported.delivered), (40, 40));
    assert!(reported.resent >= texts.len() as u64 - 40, "{reported:?}");
    assert!(
        reported.errors.len() >= 3 && reported.pauses[1] > reported.pauses[0],
        "two failures, and a break: {reported:?}"
    );
    assert!(reported.errors[0].contains("cannot reach the sink"), "{reported:?}");
}
