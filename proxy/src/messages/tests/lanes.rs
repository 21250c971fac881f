//! Logs of a listener whose number of lanes changes.

use durable::{Lanes, StoreEvent};
use durable_core::lanes::Bytes;

use super::*;
use crate::messages::generations::{self, Generations};

/// Opens the logs of a folder for a listener that has so many lanes.
fn open(path: &Path, wanted: usize) -> Opened {
    folder::open(path, wanted, &settings::disk(&disk(), 64 << 20)).expect("nobody has it")
}

/// Appends a message to each lane.
async fn append(lanes: &Lanes) {
    for store in lanes.stores() {
        let message = Incoming { source: Arc::from(&b"192.0.2.1:514"[..]), received_millis: 0, payload: vec![b'm'] };
        store.append_and_sync(vec![message]).await.expect("room").synced().await.expect("the disk is well");
    }
}

/// Waits until this is so.
async fn until(is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waits).await.expect("it comes to that");
}

/// The sink has all messages.
async fn acknowledge(lanes: &Lanes) {
    for store in lanes.stores() {
        store.acknowledge(u64::MAX).await.expect("it runs");
        until(|| store.figures().backlog() == 0).await;
    }
}

async fn close(opened: Opened) {
    let stores = opened.former.iter().flat_map(Lanes::stores).chain(opened.present.stores());
    generations::close(stores.cloned().collect()).await;
}

fn shape(opened: &Opened) -> (Vec<usize>, usize) {
    (opened.former.iter().map(Lanes::count).collect(), opened.present.count())
}

/// How many files of a folder have a name that begins so.
fn files(path: &Path, start: &str) -> usize {
    let names = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("a file").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(start)).count()
}

#[tokio::test]
async fn messages_stay_in_the_logs_of_the_lanes_that_took_them_whatever_is_wanted_later() {
    let all = tempdir().expect("a folder");
    let path = all.path().join("l");
    let test = async {
        let one = open(&path, 1);
        append(&one.present).await;
        close(one).await;
        let four = open(&path, 4);
        assert_eq!(shape(&four), (vec![1], 4));
        append(&four.present).await;
        close(four).await;
        assert_eq!(waiting(all.path(), "l").expect("logs"), 5, "those of all lanes");
        let later = open(&path, 2);
        assert_eq!(shape(&later), (vec![1], 4), "the change waits for the first message");
        acknowledge(later.former.front().expect("there is one")).await;
        close(later).await;
        let two = open(&path, 2);
        assert_eq!(shape(&two), (vec![4], 2));
        assert_eq!(two.former.iter().flat_map(Lanes::stores).map(|store| store.figures().backlog()).sum::<u64>(), 4);
        append(&two.present).await;
        assert_eq!((files(&path, "log-0"), files(&path, "log-1-4-") > 0), (0, true), "the first one's files are gone");
        close(two).await;
        assert_eq!(waiting(all.path(), "l").expect("logs"), 6);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn lanes_send_once_the_sink_has_what_came_before_them() {
    let (folder, process) = (tempdir().expect("a folder"), process());
    let test = async {
        let one = open(folder.path(), 1);
        append(&one.present).await;
        close(one).await;
        let mut logs = Generations::new(open(folder.path(), 2), &process);
        append(logs.present()).await;
        until(|| logs.figures().backlog() == 3).await;
        assert_eq!((logs.sending().count(), logs.present().count()), (1, 2));
        assert!(!logs.advance(), "a message waits");
        acknowledge(&logs.sending().clone()).await;
        let advanced = async {
            while !logs.advance() {
                assert!(!logs.has_ended(), "what is closed on purpose has not ended by itself");
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, advanced).await.expect("it is closed");
        assert_eq!((logs.sending().count(), logs.is_one(), logs.figures().backlog()), (2, true, 2));
        assert!(logs.figures().appended >= 2, "they are counted for ever");
        generations::close(logs.handles()).await;
        let opened = open(folder.path(), 2);
        assert_eq!(shape(&opened), (Vec::new(), 2), "what the sink had was saved");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_is_repaired_while_messages_are_counted_is_told_once() {
    let (folder, process) = (tempdir().expect("a folder"), process());
    let put = |file: &str, bytes: usize| std::fs::write(folder.path().join(file), vec![b'x'; bytes]).expect("a file");
    let news = async |lanes: usize| {
        let mut logs = Generations::new(open(folder.path(), lanes), &process);
        let news = logs.news();
        assert!(logs.news().is_empty());
        generations::close(logs.handles()).await;
        news
    };
    let test = async {
        put("log-0000000000000000.log", 100);
        let file = "log-0000000000000000.damaged".to_owned();
        assert_eq!(news(2).await, [StoreEvent::Quarantined { file }], "of a log that is not opened again");
        let two = open(folder.path(), 2);
        append(&two.present).await;
        close(two).await;
        put("log-1-2-0-cursor", 24);
        put("log-1-2-1-cursor", 24);
        assert_eq!(
            news(1).await,
            [StoreEvent::CursorLost, StoreEvent::CursorLost],
            "the logs that are opened again tell it themselves"
        );
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_log_whose_lanes_change_takes_messages_into_the_new_ones_and_counts_those_of_all() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let place = PlaceOfLog::new(&id("l"), folder.path(), ServerFiles::default());
    let lanes = |lanes: u32| Durable { lanes, store: api::Store::Disk { max_bytes: 64 << 20 }, ..disk() };
    let test = async {
        let opened = place.open(&lanes(1)).await.expect("nobody has it");
        append(&opened.present).await;
        let mut log = Log::new(place.clone(), &lanes(1), opened, &process, wake.clone());
        log.run(&shared(lanes(1)), &process);
        let shared = shared(lanes(4));
        log.run(&shared, &process);
        assert!(log.taker().is_none(), "it is being opened");
        timeout(SOON, wake.notified()).await.expect("it is opened");
        log.settle(&process);
        let taker = log.taker().expect("it runs");
        assert_eq!(taker.lanes.count(), 4);
        append(&taker.lanes).await;
        let counted = async {
            while shared.counters.durable().is_none_or(|seen| seen.backlog != 5) {
                log.look(&process).await;
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, counted).await.expect("those of all lanes wait");
        log.close().await;
    };
    LocalSet::new().run_until(test).await;
}

/// Appends messages of 1 MiB until there is no room, and says how many there were.
async fn fill(lanes: &Lanes) -> usize {
    let mut count = 0;
    for store in lanes.stores() {
        let source = Arc::<[u8]>::from(&b"192.0.2.1:514"[..]);
        let message = || Incoming { source: source.clone(), received_millis: 0, payload: vec![b'm'; 1 << 20] };
        while store.append_and_sync(vec![message()]).await.expect("it runs").synced().await.is_ok() {
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn lanes_have_the_bytes_that_earlier_ones_leave_and_more_once_those_are_gone() {
    let (folder, process) = (tempdir().expect("a folder"), process());
    let whole = |bytes| settings::disk(&Durable { max_message_bytes: 1 << 20, ..disk() }, bytes);
    let all = 50 << 20;
    let test = async {
        let one = folder::open(folder.path(), 1, &whole(32 << 20)).expect("nobody has it");
        let kept = fill(&one.present).await;
        assert!((24..32).contains(&kept), "{kept}");
        close(one).await;
        let logs = Generations::new(folder::open(folder.path(), 2, &whole(all)).expect("nobody has it"), &process);
        assert_eq!((logs.sending().count(), logs.present().count()), (1, 2));
        let more = fill(logs.present()).await;
        assert!(more > 2, "{more}, as each log has room for some messages");
        assert!(logs.figures().bytes <= all, "{}", logs.figures().bytes);
        acknowledge(&logs.sending().clone()).await;
        let grown = async {
            loop {
                logs.share(Bytes { all, least: settings::least_bytes(1 << 20) });
                let more = fill(logs.present()).await;
                if more > 2 {
                    break;
                }
            }
        };
        timeout(SOON, grown).await.expect("they get what the earlier one had");
        assert!(logs.figures().bytes <= all, "{}", logs.figures().bytes);
        generations::close(logs.handles()).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn lanes_change_once_they_have_room_beside_the_log_that_there_is() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let place = PlaceOfLog::new(&id("l"), folder.path(), ServerFiles::default());
    let store = api::Store::Disk { max_bytes: 32 << 20 };
    let lanes = |lanes: u32| Durable { lanes, max_message_bytes: 1 << 20, store: store.clone(), ..disk() };
    let test = async {
        let opened = place.open(&lanes(1)).await.expect("nobody has it");
        fill(&opened.present).await;
        let mut log = Log::new(place.clone(), &lanes(1), opened, &process, wake.clone());
        log.run(&shared(lanes(1)), &process);
        log.run(&shared(lanes(2)), &process);
        timeout(SOON, wake.notified()).await.expect("it is opened");
        log.settle(&process);
        let one = log.taker().expect("it runs").lanes;
        log.look(&process).await;
        assert_eq!((one.count(), log.taker().is_some()), (1, true), "it is full, and nothing was closed for that");
        acknowledge(&one).await;
        let changed = async {
            while log.taker().is_none_or(|taker| taker.lanes.count() == 1) {
                log.look(&process).await;
                log.settle(&process);
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, changed).await.expect("the sink has all");
        assert!(log.disk_bytes() <= 32 << 20, "{}", log.disk_bytes());
        log.close().await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_log_that_refuses_messages_for_want_of_room_is_full_though_who_sent_them_still_has_them() {
    let (folder, process, wake) = (tempdir().expect("a folder"), process(), Rc::<Notify>::default());
    let durable = Durable { max_message_bytes: 1 << 20, when_full: api::WhenFull::DropNewest, ..disk() };
    let place = PlaceOfLog::new(&id("l"), folder.path(), ServerFiles::default());
    let test = async {
        let opened = place.open(&durable).await.expect("nobody has it");
        assert!(fill(&opened.present).await > 0);
        let mut log = Log::new(place.clone(), &durable, opened, &process, wake.clone());
        let shared = shared(durable.clone());
        log.run(&shared, &process);
        let told = async {
            while shared.counters.delivery() != Some(Delivery::Full) {
                log.look(&process).await;
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, told).await.expect("it is full");
        let seen = shared.counters.durable().expect("it was looked at");
        assert!(seen.dropped.contains(&("Full", 0)) && seen.closed.contains(&("StoreFull", 0)), "{seen:?}");
        log.close().await;
    };
    LocalSet::new().run_until(test).await;
}
