//! What proxies report of durable listeners.

use proxy_api::{BackendHealth, Delivery, ListenerReport, ListenerState, ReportPart};

use super::{Scene, key, proxy};

impl Scene {
    /// A proxy reports that it runs all listeners, with their delivery states.
    pub(crate) fn deliver(&mut self, pod: &str, delivery: Delivery) {
        self.report(pod, &[]);
        let group = self.fleets.group_of(&key(pod), &self.translator).expect("the pod is in a group").clone();
        let snapshot = self.translator.snapshot(&group).expect("the group runs something").clone();
        let mut part = ReportPart { version: snapshot.version.clone(), commit: true, ..ReportPart::default() };
        for (id, published) in &snapshot.listeners {
            let (revision, state, backends) =
                (published.offer.revision().clone(), ListenerState::Bound, BackendHealth::All);
            let delivery = Some(delivery);
            let report = ListenerReport { revision, state, failure: None, backends, reached: None, delivery };
            part.listeners.insert(id.clone(), report);
        }
        self.proxies.reported(&proxy(pod), part, true);
    }
}
