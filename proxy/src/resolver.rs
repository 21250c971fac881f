//! Keeps the addresses of names up to date.
//!
//! `getaddrinfo` tells no time to live, so names are asked by hickory; /etc/hosts is honoured. A failure keeps the last
//! answer in use.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver as Hickory, TokioResolver,
    config::{LookupIpStrategy, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Shortest and longest time until a name is asked again, whatever its answer says.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was learnt about a name.
#[derive(Debug)]
pub struct Answer {
    /// The name.
    pub host: String,
    /// Its addresses, sorted, or why there are none.
    pub addresses: Result<Vec<IpAddr>, String>,
}

/// Follows a set of names.
pub struct Resolver {
    hickory: Result<Arc<TokioResolver>, String>,
    tasks: HashMap<String, JoinHandle<()>>,
    answers: mpsc::Sender<Answer>,
}

impl Resolver {
    /// A resolver by the system's settings; answers come through the channel.
    #[must_use]
    pub fn new(answers: mpsc::Sender<Answer>) -> Self {
        Self { hickory: hickory().map(Arc::new), tasks: HashMap::new(), answers }
    }

    /// Follows exactly these names.
    pub fn follow(&mut self, hosts: &BTreeSet<String>) {
        self.tasks.retain(|host, task| {
            let wanted = hosts.contains(host);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for host in hosts {
            if !self.tasks.contains_key(host) {
                let task = tokio::spawn(follow(self.hickory.clone(), host.clone(), self.answers.clone()));
                self.tasks.insert(host.clone(), task);
            }
        }
    }
}

fn hickory() -> Result<TokioResolver, String> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        // Without resolv.conf the hosts file still works.
        Hickory::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
    });
    let mut builder = builder;
    adjust(builder.options_mut());
    builder.build().map_err(|error| error.to_string())
}

fn adjust(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // A name that comes back is found at the next question.
    options.negative_max_ttl = Some(Duration::from_secs(1));
}

async fn follow(hickory: Result<Arc<TokioResolver>, String>, host: String, answers: mpsc::Sender<Answer>) {
    loop {
        let (addresses, wait) = match &hickory {
            Ok(hickory) => ask(hickory, &host).await,
            Err(error) => (Err(error.clone()), TTL.1),
        };
        if answers.send(Answer { host: host.clone(), addresses }).await.is_err() {
            return;
        }
        sleep(wait).await;
    }
}

async fn ask(hickory: &TokioResolver, host: &str) -> (Result<Vec<IpAddr>, String>, Duration) {
    match timeout(PATIENCE, hickory.lookup_ip(host)).await {
        Err(_) => (Err(format!("no answer within {} s", PATIENCE.as_secs())), TTL.0),
        Ok(Err(error)) if error.is_no_records_found() => (Err("no such name, or it has no address".to_owned()), TTL.0),
        Ok(Err(error)) => (Err(error.to_string()), TTL.0),
        Ok(Ok(found)) => {
            let wait = found.valid_until().saturating_duration_since(Instant::now()).clamp(TTL.0, TTL.1);
            let addresses: BTreeSet<IpAddr> = found.iter().collect();
            if addresses.is_empty() {
                return (Err("the name has no address".to_owned()), wait);
            }
            (Ok(addresses.into_iter().collect()), wait)
        }
    }
}
