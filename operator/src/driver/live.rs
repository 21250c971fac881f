//! Answers questions of the live API: the core says which proxies to query, and what they should run.

use std::collections::BTreeMap;

use super::{Driver, leading::Leading};
use operator_core::{
    ProxyId,
    live_api::{
        rates::Rates,
        together::{Carried, Together},
    },
};

use crate::{
    inputs::questions::{LiveProxy, LiveQuestion},
    outputs::publish::Channels,
};

impl Driver {
    pub(super) fn answer_live(&self, leading: &Leading, question: LiveQuestion) {
        let Leading { known, channels, .. } = leading;
        // The caller may no longer wait.
        match question {
            LiveQuestion::Proxies { of, reply } => {
                drop(reply.send(known.live(&self.cache, &of).map(|live| with_asks(live, &BTreeMap::new(), channels))));
            }
            LiveQuestion::Together { namespace, reply } => {
                let Together { forwards, proxies, carried } = known.live_together(namespace.as_deref());
                drop(reply.send((with_asks(proxies, &carried, channels), forwards)));
            }
            LiveQuestion::Config { pod, reply } => drop(reply.send(known.configured(&self.cache, pod))),
        }
    }
}

/// The proxies with the queues of their streams.
fn with_asks(
    live: BTreeMap<ProxyId, Option<Rates>>,
    carried: &BTreeMap<ProxyId, Carried>,
    channels: &Channels,
) -> Vec<LiveProxy> {
    let asked = |(proxy, rates): (ProxyId, Option<Rates>)| {
        let pod = proxy.pod()?.clone();
        Some(LiveProxy { pod, asks: channels.asks(&proxy), rates, carried: carried.get(&proxy).cloned() })
    };
    live.into_iter().filter_map(asked).collect()
}
