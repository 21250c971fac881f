//! The logs in the folder of a listener.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use durable::{Figures, Folder, FolderError, Lanes, Presence, Store, StoreEvent, StoreSettings};
use durable_core::{
    Error, Files, Log, MAX_MESSAGE_BYTES, Now, Outside, Reported, Settings, WhenFull,
    lanes::{Bytes, Generation, Plan, bytes_before, bytes_beside, is_before, with_logs},
};

use super::{
    generations::Opened,
    machine,
    settings::{least_bytes, of_former, of_lane},
};
use crate::{
    core::durable::log_files::{PREFIX, repairs},
    sys,
};

/// Opens the logs of a listener that has `wanted` lanes, which share the bounds of `whole`. While the logs of another
/// number of lanes leave no room to others beside them, these stay. This blocks while the last part of each log is
/// read.
pub(super) fn open(path: &Path, wanted: usize, whole: &StoreSettings) -> Result<Opened, String> {
    let mut folder = open_folder(path)?;
    let presence = folder.presence().map_err(|error| error.to_string())?;
    let mut files = list(&mut folder)?;
    let mut reported = Vec::new();
    let found = found(&mut folder, &files, wanted, &mut reported)?;
    let last = found.last().map(|(last, _)| *last);
    let plan = Plan::of(&found, bytes(whole).lanes(&files, PREFIX, last, wanted));
    // Files that cannot be removed now are removed with the next change.
    files.retain(|(name, _)| !is_before(name, PREFIX, plan.removes_before) || folder.remove(name).is_err());
    let opened: Vec<Generation> = plan.former.iter().chain([&plan.present]).copied().collect();
    let left = bytes_beside(&files, PREFIX, &opened, whole.dead_bytes > 0);
    let (logs, mut letters) = bytes_before(&files, PREFIX, plan.present.number);
    let mut former = VecDeque::new();
    for generation in plan.former {
        letters = letters.max(whole.dead_bytes / 2);
        former.push_back(lanes(&folder, generation, &of_former(whole, generation.lanes))?);
    }
    let present = lanes(&folder, plan.present, &of_lane(whole, plan.present.lanes, (logs, letters)))?;
    let repaired = untold(reported, former.iter().chain([&present]));
    Ok(Opened { present, server: None, former, presence: Some(presence), machine: machine::name(), repaired, left })
}

/// The contents of the folder of a listener that has another store by now.
#[derive(Default)]
pub(super) struct Rest {
    /// The logs in which messages wait. They only send.
    pub(super) former: VecDeque<Lanes>,
    /// Repairs before they were open.
    pub(super) repaired: Vec<StoreEvent>,
    /// Bytes of the files that those logs do not count.
    pub(super) left: u64,
    /// A handle that tells whether the folder was removed; `None`: there is none.
    pub(super) presence: Option<Presence>,
}

/// Opens the logs in which messages wait, for a listener that has another store by now. A folder that is not there is
/// not created.
pub(super) fn open_rest(path: &Path, whole: &StoreSettings) -> Result<Rest, String> {
    let (mut former, mut opened, mut reported) = (VecDeque::new(), Vec::new(), Vec::new());
    if !path.exists() {
        return Ok(Rest::default());
    }
    let mut folder = open_folder(path)?;
    let presence = folder.presence().map_err(|error| error.to_string())?;
    let files = list(&mut folder)?;
    for generation in with_logs(files.iter().map(|(name, _)| name.as_str()), PREFIX) {
        if waiting(&mut folder, generation, &mut reported)? > 0 {
            former.push_back(lanes(&folder, generation, &of_former(whole, generation.lanes))?);
            opened.push(generation);
        }
    }
    let left = bytes_beside(&files, PREFIX, &opened, whole.dead_bytes > 0);
    let repaired = untold(reported, former.iter());
    Ok(Rest { former, repaired, left, presence: Some(presence) })
}

/// Repairs that logs reported while their messages were counted, and that the stores opened since do not report.
fn untold<'a>(reported: Vec<Reported>, opened: impl Iterator<Item = &'a Lanes>) -> Vec<StoreEvent> {
    let told: Vec<Figures> = opened.flat_map(Lanes::stores).map(Store::figures).collect();
    let mut repaired = repairs(reported);
    repaired.retain(|event| !told.iter().any(|figures| figures.events.after(0).any(|told| told == event)));
    repaired
}

/// The bytes of a listener whose logs share the bounds of `whole`.
fn bytes(whole: &StoreSettings) -> Bytes {
    Bytes { all: whole.log.max_bytes, least: least_bytes(whole.log.max_message_bytes) }
}

fn open_folder(path: &Path) -> Result<Folder, String> {
    let folder = Folder::open(path).map_err(|error| match &error {
        FolderError::Io { source, .. } => format!("{error} ({source})"),
        FolderError::Locked(_) => error.to_string(),
    })?;
    Ok(folder.writing_back(sys::begin_write_back))
}

fn list(folder: &mut Folder) -> Result<Vec<(String, u64)>, String> {
    folder.list().map_err(|error| format!("cannot list the files of the log: {error}"))
}

/// The generations of these files, each with the number of messages that the sink does not have. If only the wanted
/// generation is there, its number is not needed.
fn found(
    folder: &mut Folder,
    files: &[(String, u64)],
    wanted: usize,
    reported: &mut Vec<Reported>,
) -> Result<Vec<(Generation, u64)>, String> {
    let generations = with_logs(files.iter().map(|(name, _)| name.as_str()), PREFIX);
    let is_settled = generations.len() == 1 && generations.iter().all(|generation| generation.lanes == wanted);
    let mut found = Vec::new();
    for generation in generations {
        found.push((generation, if is_settled { 0 } else { waiting(folder, generation, reported)? }));
    }
    Ok(found)
}

/// Messages of a generation that the sink does not have.
fn waiting(folder: &mut Folder, generation: Generation, reported: &mut Vec<Reported>) -> Result<u64, String> {
    let counted = generation.prefixes(PREFIX).map(|prefix| count(folder, &prefix, reported));
    counted.sum::<Result<u64, Error>>().map_err(|error| error.to_string())
}

/// The stores of a generation.
fn lanes(folder: &Folder, generation: Generation, settings: &StoreSettings) -> Result<Lanes, String> {
    let mut stores = Vec::new();
    for prefix in generation.prefixes(&settings.prefix) {
        let files = folder.again().map_err(|error| error.to_string())?;
        let store = Store::open(files, StoreSettings { prefix, ..settings.clone() });
        stores.push(store.map_err(|error| error.to_string())?);
    }
    let mut stores = stores.into_iter();
    let first = stores.next().ok_or("a listener has at least one log")?;
    Ok(Lanes::new(first, stores.collect()))
}

/// Messages that are not acknowledged in the log with this prefix. Bounds that the log may have are not applied to it. What
/// it reports while it is opened is added to `reported`.
pub(super) fn count(files: &mut Folder, prefix: &str, reported: &mut Vec<Reported>) -> Result<u64, Error> {
    let log = Log::open(&mut Outside { files, now: now(), reported }, prefix, unbounded());
    log.map(|log| log.backlog())
}

/// The time for a log that is only read.
pub(super) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { steady: Duration::ZERO, unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

/// Bounds that no log reaches.
pub(super) fn unbounded() -> Settings {
    Settings {
        max_bytes: u64::MAX,
        max_message_bytes: MAX_MESSAGE_BYTES,
        max_age: None,
        when_full: WhenFull::Refuse,
        sync_after: Duration::ZERO,
        sync_bytes: 0,
    }
}
