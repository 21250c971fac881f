//! `kubectl portlane logs FORWARD`: reads the logs of all proxies of a forward at the same time.

mod follow;

use std::{io, pin::Pin, time::Duration};

use futures_util::{AsyncBufRead, AsyncBufReadExt, StreamExt, future::join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kubectl_core::{
    access::{Fetched, Listed, Place},
    logs::{Filter, Record, Start, starts},
    nearest::nearest,
    placement::{PodQuery, key, pods},
};
use operator_core::ObjectKey;
use tokio::{sync::mpsc, time::timeout};

use self::follow::Known;
use crate::{
    args::{self, LogOutput},
    cluster::{Asked, Cluster},
    describe::find,
    error::Error,
    output::{note, write, yaml_document},
};

/// The most pods whose logs are read.
const PODS: usize = 100;
/// The most logs that are opened at the same time.
const OPENED: usize = 8;
/// The most bytes of a line that are stored. The rest of a longer line is skipped; records of a proxy are shorter.
const LINE: usize = 64 << 10;
/// The most records that wait for the output.
const WAITING: usize = 256;
/// The most bytes of records that are sorted. A pod may log lines of any kind.
const ORDERED: usize = 256 << 20;

/// Prints the records. Returns whether every log could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Logs) -> Result<bool, Error> {
    let forward = find(cluster, &args.forward).await?;
    let (key, query) = (key(&forward), pods(&forward));
    let listeners = &forward.spec.listeners;
    if let Some(name) = args.listener.as_ref().filter(|name| listeners.iter().all(|it| it.name != **name)) {
        let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let guess = nearest(name, names.iter().copied()).map(|it| format!("; did you mean {it}?")).unwrap_or_default();
        note(&format!("PortForward {key} has no listener {name} now: its listeners are {}{guess}", names.join(", ")));
    }
    let listed = list(cluster, &query).await?;
    let mut starts: Vec<Start> = starts(&listed.items, query.container).collect();
    if starts.is_empty() {
        note(&format!("no pod has a proxy for PortForward {key}: kubectl portlane describe {} says why", key.name));
    }
    let mut is_complete = !listed.is_cut && starts.len() <= PODS;
    if !is_complete {
        note(&format!("reading the logs of the first {PODS} pods only"));
        starts.truncate(PODS);
    }
    let params = LogParams {
        container: Some(query.container.to_owned()),
        follow: args.follow,
        since_seconds: args.since,
        tail_lines: Some(args.tail),
        ..LogParams::default()
    };
    let open = |start: Start| {
        let (namespace, params) = (query.namespace.as_str(), &params);
        async move {
            let opened = open(cluster, namespace, &start.pod, params).await;
            (start, opened)
        }
    };
    let opened: Vec<_> = stream::iter(starts).map(open).buffered(OPENED).collect().await;
    let (mut logs, mut known) = (Vec::new(), Known::default());
    for (start, opened) in opened {
        match opened {
            Ok(log) => {
                logs.push((start.pod.clone(), log));
                known.opened.insert(start);
            }
            Err(why) => known.report(&why),
        }
    }
    is_complete &= known.problems.is_empty();
    let filter = args.filter();
    let wanted = Wanted { key: &key, filter: &filter, format: args.output };
    is_complete &= if args.follow {
        Box::pin(follow::run(cluster, &query, wanted, logs, known)).await?
    } else {
        print(logs, wanted, cluster.deadline()).await?
    };
    Ok(is_complete)
}

/// Lists the pods that should run the forward.
async fn list(cluster: &Cluster, query: &PodQuery) -> Fetched<Listed<Pod>> {
    let place = Place::Namespace(query.namespace.clone());
    cluster.list::<Pod>(&place, ListParams::default().labels(&query.labels)).await
}

/// The stream of a pod's log.
type Log = Pin<Box<dyn AsyncBufRead>>;

/// Opens the log of a pod.
async fn open(cluster: &Cluster, namespace: &str, pod: &str, params: &LogParams) -> Fetched<Log> {
    let api = cluster.pods(namespace);
    let log: Log = Box::pin(cluster.answer(Asked::log(namespace), api.log_stream(pod, params)).await?);
    Ok(log)
}

/// The selection of records to print, and their format.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The forward of the records.
    key: &'a ObjectKey,
    /// The filter that the records must match.
    filter: &'a Filter,
    /// The format of the records.
    format: LogOutput,
}

/// A printed record.
struct Line {
    time: String,
    text: String,
}

impl Line {
    fn new(record: &Record, format: LogOutput) -> Self {
        let text = match format {
            LogOutput::Text => record.to_text() + "\n",
            LogOutput::Wide => record.to_wide_text() + "\n",
            LogOutput::Json => record.to_json() + "\n",
            // JSON is YAML too.
            LogOutput::Yaml => {
                yaml_document(&record.document()).unwrap_or_else(|_| format!("---\n{}\n", record.to_json()))
            }
        };
        Self { time: record.time().to_owned(), text }
    }

    fn bytes(&self) -> usize {
        self.time.len() + self.text.len() + size_of::<Self>()
    }
}

/// Prints the records of all streams in the order of their times. A server that stays silent for as long as `patience`
/// counts as unreachable. Returns whether each log was read to its end.
async fn print<S: AsyncBufRead + Unpin>(
    streams: Vec<(String, S)>,
    wanted: Wanted<'_>,
    patience: Duration,
) -> Result<bool, Error> {
    let (out, mut lines) = mpsc::channel::<Line>(WAITING);
    let read = |(pod, stream): (String, S)| read(pod, stream, wanted, Some(patience), out.clone());
    let reading = join_all(streams.into_iter().map(read));
    drop(out);
    let printing = async move {
        let (ordered, is_whole) = in_order(&mut lines, ORDERED).await;
        if !is_whole {
            let most = ORDERED >> 20;
            note(&format!("only the first {most} MiB of records were read: use --since or a lower --tail"));
        }
        for line in ordered {
            if !write(&line.text)? {
                break;
            }
        }
        Ok::<bool, io::Error>(is_whole)
    };
    let (read, printed) = tokio::join!(reading, printing);
    let is_whole = printed.map_err(Error::System)?;
    Ok(is_whole && read.into_iter().all(|is_read| is_read))
}

/// Sorts the records by time, and returns whether they are complete: at most `most` bytes are read.
async fn in_order(lines: &mut mpsc::Receiver<Line>, most: usize) -> (Vec<Line>, bool) {
    let (mut ordered, mut bytes, mut is_whole) = (Vec::new(), 0_usize, true);
    while let Some(line) = lines.recv().await {
        bytes = bytes.saturating_add(line.bytes());
        if bytes > most {
            is_whole = false;
            // Closing the channel ends the reading of all logs.
            lines.close();
            break;
        }
        ordered.push(line);
    }
    ordered.sort_by(|a: &Line, b: &Line| a.time.cmp(&b.time));
    (ordered, is_whole)
}

/// Sends the records of a log until the log ends or the receiver is gone. Returns false if the log has broken off.
async fn read(
    pod: String,
    mut stream: impl AsyncBufRead + Unpin,
    wanted: Wanted<'_>,
    patience: Option<Duration>,
    out: mpsc::Sender<Line>,
) -> bool {
    let mut line = Vec::new();
    loop {
        let next = tokio::select! {
            next = within(patience, next_line(&mut stream, &mut line)) => next,
            () = out.closed() => return true,
        };
        match next {
            Ok(true) => {}
            Ok(false) => return true,
            Err(error) => {
                note(&format!("the log of pod {pod} has ended: {error}"));
                return false;
            }
        }
        let record = Record::parse(&pod, &String::from_utf8_lossy(&line), wanted.key);
        if let Some(record) = record.filter(|record| wanted.filter.has(record))
            && out.send(Line::new(&record, wanted.format)).await.is_err()
        {
            return true;
        }
    }
}

async fn within<T>(patience: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match patience {
        None => work.await,
        Some(patience) => timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

/// Reads a line without its end. Returns false at the end of the log.
async fn next_line(stream: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    loop {
        let buffer = stream.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.unwrap_or(buffer.len());
        line.extend(buffer.iter().take(length.min(LINE.saturating_sub(line.len()))));
        stream.consume_unpin(length + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn a_line_is_bounded_and_the_last_one_needs_no_end() {
        let long = "x".repeat(LINE + 5);
        let mut stream = Cursor::new(format!("one\n\n{long}\nlast"));
        let (mut line, mut lengths) = (Vec::new(), Vec::new());
        while next_line(&mut stream, &mut line).await.expect("a line") {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [3, 0, LINE, 4]);
    }

    fn line(time: &str) -> Line {
        Line { time: time.to_owned(), text: "x".repeat(1000) }
    }

    #[tokio::test]
    async fn records_are_put_in_order_within_a_bound_of_bytes() {
        let times = |lines: &[Line]| lines.iter().map(|line| line.time.clone()).collect::<Vec<_>>();
        let (out, mut lines) = mpsc::channel(4);
        for time in ["3", "1", "2"] {
            out.send(line(time)).await.expect("room");
        }
        let (ordered, is_whole) = in_order(&mut lines, 2 * line("1").bytes()).await;
        assert_eq!((times(&ordered), is_whole), (vec!["1".to_owned(), "3".to_owned()], false));
        assert!(out.is_closed(), "the logs are read no further");

        let (out, mut lines) = mpsc::channel(4);
        out.send(line("2")).await.expect("room");
        out.send(line("1")).await.expect("room");
        drop(out);
        let (ordered, is_whole) = in_order(&mut lines, ORDERED).await;
        assert_eq!((times(&ordered), is_whole), (vec!["1".to_owned(), "2".to_owned()], true));
    }

    #[tokio::test]
    async fn a_log_that_breaks_off_is_not_complete() {
        let (key, filter) = (ObjectKey::new("shop", "db"), Filter::default());
        let wanted = Wanted { key: &key, filter: &filter, format: LogOutput::Text };
        for (is_silent, patience, is_whole) in
            [(true, Duration::from_millis(1), false), (false, Duration::from_secs(60), true)]
        {
            // A log that stays silent breaks off; an empty one ends.
            let silent = futures_util::io::BufReader::new(Silent(is_silent));
            let streams = vec![("shop-1".to_owned(), silent)];
            let printed = print(streams, wanted, patience).await.expect("printed");
            assert_eq!(printed, is_whole);
        }
    }

    #[test]
    fn a_record_is_a_line_or_a_document_of_its_own() {
        let line = r#"{"time":"t","level":"info","event":"failed","subject":"shop/db/pg","message":"in use"}"#;
        let record = Record::parse("edge-1", line, &ObjectKey::new("shop", "db")).expect("a record");
        let text = |format: LogOutput| Line::new(&record, format).text;
        assert_eq!(text(LogOutput::Text), "t edge-1 failed shop/db/pg: in use\n");
        assert_eq!(text(LogOutput::Wide), "t edge-1 failed shop/db/pg: in use level=info\n");
        let json = text(LogOutput::Json);
        assert_eq!((json.lines().count(), json.contains("\"pod\":\"edge-1\"")), (1, true), "{json}");
        let yaml = text(LogOutput::Yaml);
        assert!(yaml.starts_with("---\n") && yaml.contains("\npod: edge-1\n"), "{yaml}");
        assert!(yaml.contains("\nmessage: in use\n") && yaml.ends_with('\n'), "{yaml}");
    }

    /// A log that stays silent, or ends at once.
    struct Silent(bool);

    impl futures_util::AsyncRead for Silent {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            if self.0 { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(0)) }
        }
    }
}
