//! Backends of a listener that runs in its last good version: those that the forward may still use today.

use proxy_api::{Backend, Listener, Target};

use super::{Scope, SetName, sets::Contacts};
use crate::translate::validate::service_of_id;

impl Scope<'_> {
    /// A backend of a running listener, if the forward may use it today.
    pub(crate) fn still_permitted(&self, backend: &Backend, listener: &Listener) -> Option<Backend> {
        // The target of an `ExternalName` Service is an address; only the identity names the Service.
        if let Some(service) = service_of_id(&backend.id) {
            self.permit(&service).ok()?;
        }
        let contacts = Contacts { further: listener.further_ports(), checked: listener.checked_port(backend) };
        let target = match &backend.target {
            // The set leaves out endpoints that the gateway does not allow, so no set with other rules may replace it.
            endpoints @ Target::Endpoints(set) => {
                let name = SetName::parse(set)?;
                let is_usable = match self.host {
                    Some(_) => name.host.as_ref() == self.host && !name.is_own,
                    None if name.is_own => name.host.as_ref() == self.home,
                    None => name.host.is_none() && self.judge_of(&name.service).is_none(),
                };
                is_usable.then(|| endpoints.clone())
            }
            Target::Address { host, port } => {
                self.address(host.trim_end_matches('.'), host.clone(), *port, contacts).ok()
            }
            Target::Tunnel { agent, host, port } => {
                self.tunnel_again(listener.transport_out(), agent, host, *port, contacts)
            }
        };
        Some(Backend { target: target?, ..backend.clone() })
    }
}
