//! `kubectl portlane lag`: the lag of durable listeners, as reported by their proxies through the live API.

use kubectl_core::{
    access::{Listed, Place},
    lag::{Answer, Question, durable, instead, of_cluster, request},
    render,
};
use tokio::time::Instant;

use crate::{args, cluster::Cluster, describe::find, error::Error, live, output};

/// Prints the listeners. Returns whether everything could be read.
pub(crate) async fn run(cluster: &Cluster, args: &args::Lag) -> Result<bool, Error> {
    let forwards = if let Some(name) = &args.forward {
        Listed::from(vec![find(cluster, name).await?])
    } else {
        live::all_forwards(cluster, args.all_namespaces).await?
    };
    let place = if args.all_namespaces { Place::Everywhere } else { Place::Namespace(cluster.namespace.clone()) };
    let asked = durable(&forwards.items);
    let answers = if asked.is_empty() { Vec::new() } else { Box::pin(ask(cluster, (place, asked))).await };
    let note = forwards.is_cut.then(|| format!("only the first {} forwards were read", forwards.items.len()));
    let report = of_cluster(&forwards.items, answers, note);
    output::print(&report, args.output, render::lag)?;
    Ok(report.notes.is_empty())
}

/// Answers a question, or narrower ones as far as the rights of the user permit. No request is sent once the time of
/// one request is over.
async fn ask(cluster: &Cluster, question: Question) -> Vec<Answer> {
    let end = Instant::now() + cluster.deadline();
    let (mut answers, mut left) = (Vec::new(), vec![question]);
    while let Some(question) = left.pop() {
        let request = request(&question);
        if Instant::now() >= end {
            answers.push(Err(request.failed("other requests have taken the time")));
            break;
        }
        let answer: Answer = live::read(cluster, &request).await;
        let narrower = instead(&question, &answer);
        if narrower.is_empty() {
            answers.push(answer);
        }
        left.extend(narrower);
    }
    answers
}
