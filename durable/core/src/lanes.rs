//! The lanes of a listener: which one a message takes, the names of their logs, and which logs are opened.
//!
//! Each lane has a log of its own. The logs that are begun together are a [`Generation`]. Another number of lanes is
//! another generation: the messages of a source are then in two logs, and those in the earlier one are sent first.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Most lanes of a listener.
pub const MAX_LANES: usize = 16;

/// Which of `lanes` lanes messages from this source take. Only the address counts: a client that connects again has
/// another port, and its messages stay in order. The result is the same in every process and release, as the order of
/// messages that wait on disk depends on it.
#[must_use]
pub fn lane_of(source: IpAddr, lanes: usize) -> usize {
    if lanes < 2 {
        // As a rule there is one lane, and each datagram asks for it.
        return 0;
    }
    let hash = match source.to_canonical() {
        IpAddr::V4(address) => crc32fast::hash(&address.octets()),
        IpAddr::V6(address) => crc32fast::hash(&address.octets()),
    };
    // The upper bits are those that neighbouring addresses do not share.
    usize::try_from((u64::from(hash) * lanes as u64) >> 32).unwrap_or(0)
}

/// Logs that were begun together, one for each lane. A later generation has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// The number of the generation.
    pub number: u32,
    /// The number of lanes, 1 to [`MAX_LANES`].
    pub lanes: usize,
}

impl Generation {
    /// The one log of a listener that has never had several lanes. The names of its files contain no generation.
    pub const FIRST: Self = Self { number: 0, lanes: 1 };

    /// The prefix of the file names of each lane, in the order of the lanes.
    pub fn prefixes(self, prefix: &str) -> impl Iterator<Item = String> {
        let Self { number, lanes } = self;
        (0..lanes).map(move |lane| match self {
            Self::FIRST => prefix.to_owned(),
            _ => format!("{prefix}{number}-{lanes}-{lane}-"),
        })
    }

    /// The generation of a file, and its part in the lane; `None`: the file belongs to no known generation.
    fn of_file(name: &str, prefix: &str) -> Option<(Self, Part)> {
        let rest = name.strip_prefix(prefix)?;
        let (generation, file) = Self::split(rest).unwrap_or((Self::FIRST, rest));
        let has_extension = |wanted| file.rsplit_once('.').is_some_and(|(_, extension)| extension == wanted);
        let part = if file.starts_with("dead-") {
            Part::Letters
        } else if file.contains('-') {
            // A later release may have written the file.
            return None;
        } else if file == "cursor" || has_extension("log") {
            Part::Log
        } else {
            Part::Other
        };
        Some((generation, part))
    }

    /// The generation that a name begins with, and the rest of it.
    fn split(name: &str) -> Option<(Self, &str)> {
        let mut parts = name.splitn(4, '-');
        let (number, lanes, lane) = (parts.next()?, parts.next()?, parts.next()?);
        let generation = Self { number: number.parse().ok()?, lanes: lanes.parse().ok()? };
        let (rest, lane): (_, usize) = (parts.next()?, lane.parse().ok()?);
        let is_one = generation.number > 0 && generation.lanes <= MAX_LANES && lane < generation.lanes;
        is_one.then_some((generation, rest))
    }
}

/// The part of a file in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Log,
    Letters,
    Other,
}

/// The generations that have messages, or had some, among the files of a folder.
#[must_use]
pub fn with_logs<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> BTreeSet<Generation> {
    with(names, prefix, Part::Log)
}

/// The generations that have dead letters.
#[must_use]
pub fn with_letters<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> BTreeSet<Generation> {
    with(names, prefix, Part::Letters)
}

fn with<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str, wanted: Part) -> BTreeSet<Generation> {
    let found = names.into_iter().filter_map(|name| Generation::of_file(name, prefix));
    found.filter(|(_, part)| *part == wanted).map(|(generation, _)| generation).collect()
}

/// Whether a file is of a generation before the one of this number.
#[must_use]
pub fn is_before(name: &str, prefix: &str, number: u32) -> bool {
    Generation::of_file(name, prefix).is_some_and(|(generation, _)| generation.number < number)
}

/// Bytes of the files of generations before `number`, by these names and lengths: those of logs, and those of dead
/// letters.
#[must_use]
pub fn bytes_before(files: &[(String, u64)], prefix: &str, number: u32) -> (u64, u64) {
    let found = files.iter().filter_map(|(name, bytes)| Some((Generation::of_file(name, prefix)?, *bytes)));
    found.filter(|((generation, _), _)| generation.number < number).fold(
        (0, 0),
        |(log, letters), ((_, part), bytes)| {
            if part == Part::Letters { (log, letters + bytes) } else { (log + bytes, letters) }
        },
    )
}

/// Bytes of the parts, whole or damaged, among files of these lengths that no store of the `opened` generations counts:
/// those of other generations, those that a later release wrote, and dead letters unless the stores are opened
/// `with_letters`.
#[must_use]
pub fn bytes_beside(files: &[(String, u64)], prefix: &str, opened: &[Generation], with_letters: bool) -> u64 {
    let is_part =
        |name: &str| name.rsplit_once('.').is_some_and(|(_, extension)| extension == "log" || extension == "damaged");
    let is_counted = |name: &str| {
        Generation::of_file(name, prefix)
            .is_some_and(|(generation, part)| opened.contains(&generation) && (with_letters || part != Part::Letters))
    };
    let beside = files.iter().filter(|(name, _)| is_part(name) && !is_counted(name));
    beside.map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
}

/// The bytes that each of `lanes` logs may have: an equal part of what earlier logs leave of `all`, and no less than
/// `least`.
#[must_use]
pub fn part(all: u64, earlier: u64, lanes: usize, least: u64) -> u64 {
    (all.saturating_sub(earlier) / (lanes.max(1) as u64)).max(least)
}

/// The bytes of a listener, for a change of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The bytes that all logs may have together.
    pub all: u64,
    /// The bytes that each log may have at least.
    pub least: u64,
}

impl Bytes {
    /// Whether `wanted` logs beside earlier ones, which have `earlier` bytes, stay within the bytes of the listener.
    /// The `present` logs may have more than those, as each has at least the least of a log.
    #[must_use]
    pub fn fit(self, earlier: u64, present: usize, wanted: usize) -> bool {
        let least = |lanes: usize| self.least.saturating_mul(lanes as u64);
        earlier.saturating_add(least(wanted)) <= self.all.max(least(present))
    }

    /// The number of lanes of a listener whose folder has these files and whose latest generation is `last`: `wanted`,
    /// or still that of `last` while its logs leave too few bytes to others beside them.
    #[must_use]
    pub fn lanes(self, files: &[(String, u64)], prefix: &str, last: Option<Generation>, wanted: usize) -> usize {
        let Some(last) = last else { return wanted };
        // The files of generations before `last` are removed when another generation begins.
        let before = |number| bytes_before(files, prefix, number).0;
        let stay = before(last.number.saturating_add(1)).saturating_sub(before(last.number));
        if last.lanes == wanted || self.fit(stay, last.lanes, wanted) { wanted } else { last.lanes }
    }
}

/// The generations that a listener opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Generations whose messages are sent before any of `present`, in order.
    pub former: Vec<Generation>,
    /// The generation that takes messages.
    pub present: Generation,
    /// The files of generations before this number are removed, with their dead letters. So a folder has the files of two
    /// generations, however often the number of lanes changes.
    pub removes_before: u32,
}

impl Plan {
    /// The plan of a listener for `wanted` lanes. `found` has the generations in its folder, in order, each with the
    /// number of its messages that the sink does not have. While messages wait in an earlier generation, the latest one
    /// stays, whatever is wanted: the number of lanes then changes later, once.
    #[must_use]
    pub fn of(found: &[(Generation, u64)], wanted: usize) -> Self {
        let Some(((last, waiting), earlier)) = found.split_last() else {
            let present = if wanted == 1 { Generation::FIRST } else { Generation { number: 1, lanes: wanted } };
            return Self { former: Vec::new(), present, removes_before: 0 };
        };
        let with_messages = |(generation, waiting): &(Generation, u64)| (*waiting > 0).then_some(*generation);
        let former: Vec<Generation> = earlier.iter().filter_map(with_messages).collect();
        if last.lanes == wanted || !former.is_empty() {
            return Self { former, present: *last, removes_before: 0 };
        }
        let present = Generation { number: last.number.saturating_add(1), lanes: wanted };
        Self { former: with_messages(&(*last, *waiting)).into_iter().collect(), present, removes_before: last.number }
    }
}

#[cfg(test)]
mod tests;
