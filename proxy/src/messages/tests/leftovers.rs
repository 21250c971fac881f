//! What the logs of listeners that are gone, or have another store by now, leave behind.

use durable::Lanes;

use super::*;
use crate::messages::{
    generation::Loss,
    generations::{self, Generations},
};

/// A thread whose logs have this room, and a spec of a log of 16 MiB.
fn thread(folder: &Path, room: u64) -> (Thread, Arc<Listener>) {
    let settings = Settings { data: Some(folder.to_owned()), data_bytes: Some(room), ..Settings::default() };
    (Thread::new(Place::of(&settings).expect("a folder"), process()), listener(disk()))
}

fn wanted(id: &ListenerId, spec: &Arc<Listener>) -> Wanted {
    Wanted { id: id.clone(), spec: spec.clone(), done: oneshot::channel().0 }
}

/// Bytes of the parts of logs, and of dead letters, in a folder.
fn parts(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("a file"));
    let parts = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    parts.map(|file| file.metadata().expect("a file").len()).sum()
}

// C9
#[tokio::test]
async fn dead_letters_and_logs_that_are_not_opened_count_as_what_their_listener_has_on_the_disk() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let path = home.path().join("l");
    let with_letters = settings::disk(&Durable { dead_letter_bytes: Some(16 << 20), ..disk() }, 64 << 20);
    let without = settings::disk(&disk(), 64 << 20);
    let test = async {
        generations::close(opened(&path).await.present.stores().cloned().collect()).await;
        let one = folder::open(&path, 1, &with_letters).expect("nobody has it").present;
        let store = one.stores().next().expect("a lane");
        let fate = store.dead(store.figures().cursor, "no".to_owned()).await.expect("it runs");
        assert_eq!(fate, durable::Fate::PutAside);
        acknowledge(&one).await;
        generations::close(vec![store.clone()]).await;
        for (lanes, settings) in [(1, &with_letters), (1, &without), (2, &with_letters)] {
            let opened = folder::open(&path, lanes, settings).expect("nobody has it");
            let logs = Generations::new(opened, &process);
            assert_eq!(
                (logs.disk_bytes(), logs.past_bytes() > 0),
                (parts(&path), settings.dead_bytes == 0 || lanes > 1)
            );
            generations::close(logs.handles()).await;
        }
        let rest = folder::open_rest(&path, &without).expect("nobody has it");
        assert_eq!((rest.former.len(), rest.left), (0, parts(&path)), "nothing waits");
    };
    LocalSet::new().run_until(test).await;
}

// C9
#[tokio::test]
async fn the_log_of_a_listener_that_is_gone_takes_its_room_until_it_is_opened_again() {
    let folder = tempdir().expect("a folder");
    let (mut thread, spec) = thread(folder.path(), (16 << 20) + 64);
    let test = async {
        let place = thread.place.of_log(&id("gone"), &thread.process);
        let opened = place.open(&disk()).await.expect("nobody has it");
        let store = opened.present.stores().next().expect("a lane").clone();
        let message =
            Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 0, payload: vec![b'm'; 64] };
        store.append_and_sync(vec![message]).await.expect("room").synced().await.expect("synced");
        let log = Log::new(place, &disk(), opened, &thread.process, thread.wake.clone());
        thread.logs.insert(id("gone"), log);
        thread.follow(&[]).await;
        assert!(thread.logs.is_empty());
        let refused = |thread: &Thread, name: &str| !thread.without_room(&[wanted(&id(name), &spec)]).is_empty();
        assert!(refused(&thread, "other"), "it leaves");
        let gone = async {
            while !thread.leaving.is_empty() {
                thread.look().await;
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, gone).await.expect("it is closed");
        assert!(refused(&thread, "other") && !refused(&thread, "gone"), "its message is on the disk");
        thread.rest = Rest::find(folder.path().join(ALL_LOGS));
        thread.rest.seen().await;
        assert!(refused(&thread, "other") && !refused(&thread, "gone"), "also for the next process");
    };
    LocalSet::new().run_until(test).await;
}

/// Opens the log in this folder, and gives it a message.
pub(in crate::messages) async fn opened(path: &Path) -> Opened {
    let opened = folder::open(path, 1, &settings::disk(&disk(), 16 << 20)).expect("nobody has it");
    let message = Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 0, payload: vec![b'm'] };
    let store = opened.present.stores().next().expect("a lane");
    store.append_and_sync(vec![message]).await.expect("room").synced().await.expect("the disk is well");
    opened
}

/// The same of a stream of this server that fails. A store whose folder is gone does so, as one whose server is gone does.
pub(in crate::messages) async fn lost(path: &Path, server: &str) -> Opened {
    let lost = stream(path, server).await;
    let store = lost.present.stores().next().expect("a lane");
    std::fs::remove_dir_all(path).expect("a folder");
    let message = Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 0, payload: vec![b'm'] };
    store.append_and_sync(vec![message]).await.expect("room").synced().await.expect_err("it is gone");
    lost
}

/// The sink has all messages.
pub(in crate::messages) async fn acknowledge(lanes: &Lanes) {
    for store in lanes.stores() {
        store.acknowledge(u64::MAX).await.expect("it runs");
    }
}

#[tokio::test]
async fn a_stream_that_a_listener_leaves_sends_what_it_has_before_what_comes_then() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let test = async {
        // What counts is that its messages are elsewhere.
        let stream = Opened { server: Some("nats://a".to_owned()), ..opened(&home.path().join("stream")).await };
        let mut logs = Generations::new(stream, &process);
        assert!(logs.is_stream());
        let closed = [Some("nats://a"), Some("nats://b"), None].map(|server| logs.handles_without(server).len());
        assert_eq!(closed, [1, 0, 0], "the same stream is opened again");
        logs.change(opened(&home.path().join("disk")).await, &process);
        assert_eq!((logs.is_stream(), logs.is_one(), logs.figures().backlog()), (false, false, 2));
        assert!(!logs.advance(), "a message waits in the stream");
        acknowledge(&logs.sending().clone()).await;
        let advanced = async {
            while !logs.advance() {
                assert!(!logs.has_ended(), "what is closed on purpose has not ended by itself");
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, advanced).await.expect("its server says that it is empty");
        assert_eq!((logs.is_one(), logs.figures().backlog()), (true, 1));
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

/// The same of a stream of this server. What counts is that its messages are elsewhere.
async fn stream(path: &Path, server: &str) -> Opened {
    Opened { server: Some(server.to_owned()), ..opened(path).await }
}

#[tokio::test]
async fn a_store_that_changes_again_while_messages_wait_sends_them_in_the_order_in_which_they_came() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let (path, disk) = (home.path().join("l"), settings::disk(&disk(), u64::MAX));
    let rest = || folder::open_rest(&path, &disk).expect("nobody has it").former;
    let test = async {
        generations::close(opened(&path).await.present.stores().cloned().collect()).await;
        let a = Opened { former: rest(), ..stream(&home.path().join("a"), "nats://a").await };
        let mut logs = Generations::new(a, &process);
        let mut order = vec![None, Some("nats://a")];
        for (name, server) in [("b", "nats://b"), ("c", "nats://c")] {
            generations::close(logs.handles_without(Some(server))).await;
            let next = Opened { former: rest(), ..stream(&home.path().join(name), server).await };
            logs.change(next, &process);
            order.push(Some(server));
            assert_eq!(logs.servers(), order);
        }
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_stream_that_is_closed_while_the_store_changes_has_not_ended_by_itself() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let test = async {
        let before = process.files.usage().0;
        let a = stream(&home.path().join("a"), "nats://a").await;
        let store = a.present.stores().next().expect("a lane").clone();
        let mut logs = Generations::new(a, &process);
        logs.change(stream(&home.path().join("b"), "nats://b").await, &process);
        assert_eq!(process.files.usage().0 - before, 32, "the files of both are counted");
        assert!(!logs.advance(), "it begins to wait for its sink");
        logs.change(stream(&home.path().join("c"), "nats://c").await, &process);
        acknowledge(&store.clone().into()).await;
        let closed = async {
            while !store.has_ended() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, closed).await.expect("its sink has all");
        assert!(!logs.has_ended());
        let advanced = async {
            while !logs.advance() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, advanced).await.expect("it is closed");
        assert_eq!(logs.servers(), [Some("nats://b"), Some("nats://c")]);
        assert_eq!(process.files.usage().0 - before, 32);
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_waits_on_disk_between_two_streams_keeps_its_turn() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let (path, disk) = (home.path().join("l"), settings::disk(&disk(), u64::MAX));
    let test = async {
        let mut logs = Generations::new(stream(&home.path().join("a"), "nats://a").await, &process);
        logs.change(opened(&path).await, &process);
        for (name, server) in [("b", "nats://b"), ("c", "nats://c")] {
            generations::close(logs.handles_without(Some(server))).await;
            let former = folder::open_rest(&path, &disk).expect("nobody has it").former;
            logs.change(Opened { former, ..stream(&home.path().join(name), server).await }, &process);
        }
        assert_eq!(logs.servers(), [Some("nats://a"), None, Some("nats://b"), Some("nats://c")]);
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_stream_that_a_listener_left_and_that_fails_for_a_minute_holds_up_later_messages_no_longer() {
    let (home, process) = (tempdir().expect("a folder"), process());
    let test = async {
        let stream = lost(&home.path().join("stream"), "nats://a").await;
        let store = stream.present.stores().next().expect("a lane").clone();
        let mut logs = Generations::new(stream, &process);
        logs.change(opened(&home.path().join("disk")).await, &process);
        let waiting = store.figures().backlog();
        assert!(waiting > 0 && logs.figures().failure.is_some());
        assert_eq!((0..100).take_while(|_| !logs.advance()).count(), 59);
        let seen = |logs: &Generations| (logs.is_one(), logs.figures().backlog(), logs.figures().failure);
        assert_eq!((seen(&logs), logs.losses()), ((true, 1, None), Vec::new()), "it is being closed");
        let closed = async {
            loop {
                let losses = logs.losses();
                if !losses.is_empty() {
                    return losses;
                }
                tokio::task::yield_now().await;
            }
        };
        let lost = Loss { server: "nats://a".to_owned(), messages: waiting, unpublished: 0 };
        assert_eq!(timeout(SOON, closed).await.expect("it is closed"), [lost]);
        assert!(store.has_ended(), "nobody has it any more");
        assert_eq!((seen(&logs), logs.losses()), ((true, 1, None), Vec::new()));
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_waits_on_disk_of_a_listener_that_has_a_stream_is_opened_until_its_sink_has_all() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("l");
    let rest = || folder::open_rest(&path, &settings::disk(&disk(), u64::MAX)).expect("nobody has it").former;
    let test = async {
        assert!(rest().is_empty() && !path.exists(), "no folder is made");
        generations::close(opened(&path).await.present.stores().cloned().collect()).await;
        let former = rest();
        let waiting: Vec<u64> = former.iter().flat_map(Lanes::stores).map(|store| store.figures().backlog()).collect();
        assert_eq!(waiting, [1]);
        for lanes in &former {
            acknowledge(lanes).await;
            generations::close(lanes.stores().cloned().collect()).await;
        }
        assert!(rest().is_empty(), "its sink has all");
        let rest = folder::open_rest(&path, &settings::disk(&disk(), u64::MAX)).expect("nobody has it");
        let presence = rest.presence.expect("there is a folder");
        assert!(!presence.is_removed());
        std::fs::remove_dir_all(&path).expect("a folder");
        assert!(presence.is_removed(), "that is noticed beside a stream, too");
    };
    LocalSet::new().run_until(test).await;
}
