//! What proxies report of durable listeners.

use proxy_api::{Delivery, ListenerReport, ReportPart};

use super::{Scene, key, proxy};

impl Scene {
    /// A proxy reports that it runs all listeners, with their delivery states.
    pub(crate) fn deliver(&mut self, pod: &str, delivery: Delivery) {
        self.report(pod, &[]);
        let group = self.fleets.group_of(&key(pod), &self.translator).expect("the pod is in a group").clone();
        let snapshot = self.translator.snapshot(&group).expect("the group runs something").clone();
        let mut part = ReportPart { version: snapshot.version.clone(), commit: true, ..ReportPart::default() };
        for (id, published) in &snapshot.listeners {
            let usual = ListenerReport::usual(published.offer.revision().clone());
            let report = ListenerReport { delivery: Some(delivery), ..usual };
            part.listeners.insert(id.clone(), report);
        }
        self.proxies.reported(&proxy(pod), part, true);
    }
}
