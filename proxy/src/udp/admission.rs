//! From a datagram to its flow: finds it, or opens it if the limits and the room of the process permit.

use std::{net::IpAddr, rc::Rc};

use super::{UdpListener, flow::Flow};
use crate::{
    core::{
        limits::limiter::{FlowSlot, Newcomer, Victim},
        sessions::end::EndReason,
        udp::flows::FlowKey,
    },
    process::FlowPermits,
    shared::{Dropped, Shared},
    worker::Worker,
};

impl UdpListener {
    /// The client's flow; opens one if the client has none or its endpoint is unusable and another is healthy.
    pub(super) fn flow(self: &Rc<Self>, worker: &Rc<Worker>, key: FlowKey, now: u64) -> Result<Rc<Flow>, Dropped> {
        let known = self.touch(&key, now);
        let mut tried = Vec::new();
        if let Some(flow) = known.as_ref().filter(|flow| flow.is_evicted()) {
            self.end_flow(worker, flow, EndReason::Evicted);
        } else if let Some(flow) = known {
            // Without an alternative, keep the flow: reopening it for every datagram would not help.
            // The listener is only borrowed: all workers share its count of references, and most datagrams come here.
            let has_no_other = || !flow.has_alternative(self.route.load().first(), now / 1000);
            if flow.is_usable(now / 1000) || has_no_other() {
                flow.forgive();
                flow.asked();
                return Ok(flow);
            }
            tried.push(flow.endpoint().clone());
            self.end_flow(worker, &flow, EndReason::BackendUnhealthy);
        }
        if worker.draining.get() {
            return Err(Dropped::Draining);
        }
        if !self.flows.borrow().has_room(now) {
            return Err(Dropped::TableFull);
        }
        let listener = self.route.load().first().clone();
        let slot = Self::slot(&listener, key, now)?;
        let permits = self.room(worker, &listener.id.origin.namespace, key, now)?;
        let offset = self.port.saturating_sub(listener.spec.load().socket.port);
        let flow = Flow::open(worker, &listener, key, tried, (slot, offset, permits))?;
        self.admit(worker, flow, key, now)
    }

    /// Room for a flow. Where room is short, another flow of the process gives way: its file becomes free a moment later.
    /// A flow of this socket gives its memory to the new one at once.
    fn room(&self, worker: &Rc<Worker>, namespace: &str, key: FlowKey, now: u64) -> Result<FlowPermits, Dropped> {
        let newcomer = Newcomer { namespace, source: key.client.ip() };
        let taken = worker.process.take_flow(newcomer);
        let victim = worker.process.evict_flow_for_newcomer(newcomer, taken.is_err(), now);
        match (taken, victim) {
            (Err(Dropped::SessionLimit), Some(victim)) if self.end_victim(worker, &victim) => {
                worker.process.take_flow(newcomer)
            }
            (taken, _) => taken,
        }
    }

    /// Ends a flow that gives way, if it is one of this socket.
    fn end_victim(&self, worker: &Rc<Worker>, victim: &Victim) -> bool {
        let flow = self.flows.borrow().get(&victim.key).filter(|flow| flow.is(&victim.mark)).cloned();
        flow.inspect(|flow| self.end_flow(worker, flow, EndReason::Evicted)).is_some()
    }

    /// A slot under the forward's limits.
    fn slot(listener: &Shared, key: FlowKey, now: u64) -> Result<FlowSlot, Dropped> {
        let source = key.client.ip();
        Self::permit(listener, source)?;
        Ok(listener.limiter.admit_flow(source, now)?)
    }

    /// Whether this client may have flows: it is none of the own fleet, and `access` admits it.
    pub(super) fn permit(listener: &Shared, source: IpAddr) -> Result<(), Dropped> {
        if listener.returns(source) {
            return Err(Dropped::Loop);
        }
        if !listener.counters.admits(&listener.spec.load(), source) {
            return Err(Dropped::AccessDenied);
        }
        Ok(())
    }

    fn admit(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        flow: Rc<Flow>,
        key: FlowKey,
        now: u64,
    ) -> Result<Rc<Flow>, Dropped> {
        let evicted = self.flows.borrow_mut().insert(key, flow.clone(), now).map_err(|_| Dropped::TableFull)?;
        if let Some(evicted) = evicted {
            evicted.end(worker, EndReason::Evicted);
        }
        flow.begin(worker, self);
        Ok(flow)
    }
}
