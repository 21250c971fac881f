//! `kubectl portlane logs FORWARD`: reads the logs of all proxies of a forward at the same time.

use std::{collections::BTreeSet, io, time::Duration};

use futures_util::{AsyncBufRead, AsyncBufReadExt, StreamExt, future::join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kubectl_core::{
    access::{Fetched, Place},
    logs::Record,
    placement::{carries, key, pods},
    render::printable,
};
use operator_core::ObjectKey;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    args::{self, LogOutput},
    cluster::{Asked, Cluster},
    describe::find,
    error::Error,
    output::write,
};

/// Most pods whose logs are read.
const PODS: usize = 100;
/// Logs that are opened at the same time.
const OPENED: usize = 8;
/// Most bytes of a line that are kept. The rest of a longer line is skipped; no record of a proxy is as long.
const LINE: usize = 64 << 10;
/// Records that may wait for the output.
const WAITING: usize = 256;

/// Prints the records. Returns whether every log could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Logs) -> Result<bool, Error> {
    let forward = find(cluster, &args.forward).await?;
    let (key, query) = (key(&forward), pods(&forward));
    let place = Place::Namespace(query.namespace.clone());
    let listed = cluster.list::<Pod>(&place, ListParams::default().labels(&query.labels)).await?;
    let carriers = listed.items.iter().filter(|pod| carries(pod, query.container));
    let mut names: Vec<String> = carriers.filter_map(|pod| pod.metadata.name.clone()).collect();
    if names.is_empty() {
        tell(&format!("no pod has a proxy for PortForward {key}: kubectl portlane describe {} says why", key.name));
    }
    let mut is_complete = !listed.is_cut && names.len() <= PODS;
    if !is_complete {
        tell(&format!("reading the logs of the first {PODS} pods only"));
        names.truncate(PODS);
    }
    let params = LogParams {
        container: Some(query.container.to_owned()),
        follow: args.follow,
        since_seconds: args.since,
        tail_lines: Some(args.tail),
        ..LogParams::default()
    };
    let (namespace, params) = (query.namespace.as_str(), &params);
    let open = |pod: String| async move {
        let opened = open(cluster, namespace, &pod, params).await;
        (pod, opened)
    };
    let opened: Vec<_> = stream::iter(names).map(open).buffered(OPENED).collect().await;
    let (mut streams, mut problems) = (Vec::new(), BTreeSet::new());
    for (pod, opened) in opened {
        match opened {
            Ok(stream) => streams.push((pod, stream)),
            Err(why) => {
                problems.insert(why.to_string());
            }
        }
    }
    for problem in &problems {
        tell(problem);
    }
    is_complete &= problems.is_empty();
    // A log that is not followed ends; a server that stays silent has gone.
    let patience = (!args.follow).then(|| cluster.deadline());
    print(streams, &key, patience, args.output).await?;
    Ok(is_complete)
}

/// Opens the log of a pod.
async fn open(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    params: &LogParams,
) -> Fetched<impl AsyncBufRead + Unpin + use<>> {
    let api = cluster.pods(namespace);
    cluster.answer(Asked::log(namespace), api.log_stream(pod, params)).await.map(Box::pin)
}

/// Prints the records of all streams: those of logs that end by their time, others as they come.
async fn print<S: AsyncBufRead + Unpin>(
    streams: Vec<(String, S)>,
    key: &ObjectKey,
    patience: Option<Duration>,
    format: LogOutput,
) -> Result<(), Error> {
    let (out, mut records) = mpsc::channel::<Record>(WAITING);
    let read = |(pod, stream): (String, S)| read(pod, stream, key, patience, out.clone());
    let reading = join_all(streams.into_iter().map(read));
    drop(out);
    let printing = async move {
        let mut ordered = Vec::new();
        while let Some(record) = records.recv().await {
            if patience.is_some() {
                ordered.push(record);
            } else if !write(&line(&record, format))? {
                return Ok(());
            }
        }
        ordered.sort_by(|a, b| a.time().cmp(b.time()));
        let text: String = ordered.iter().map(|record| line(record, format)).collect();
        write(&text).map(drop)
    };
    let (_, printed) = tokio::join!(reading, printing);
    printed.map_err(Error::System)
}

fn line(record: &Record, format: LogOutput) -> String {
    match format {
        LogOutput::Text => record.to_text() + "\n",
        LogOutput::Json => record.to_json() + "\n",
    }
}

/// Sends the records of a log until the log ends or nobody reads them.
async fn read(
    pod: String,
    mut stream: impl AsyncBufRead + Unpin,
    key: &ObjectKey,
    patience: Option<Duration>,
    out: mpsc::Sender<Record>,
) {
    let mut line = Vec::new();
    loop {
        let next = tokio::select! {
            next = within(patience, next_line(&mut stream, &mut line)) => next,
            () = out.closed() => return,
        };
        match next {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tell(&format!("the log of pod {pod} has ended: {error}")),
        }
        let record = Record::parse(&pod, &String::from_utf8_lossy(&line), key);
        if let Some(record) = record
            && out.send(record).await.is_err()
        {
            return;
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

/// Reports a problem that does not end the command.
fn tell(text: &str) {
    eprintln!("{}", printable(text));
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
}
