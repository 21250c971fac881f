//! The load balancer of a cloud, for pages that read its address.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use harness::{Namespace, until};

/// The load balancer that a page asks for. kube-proxy leads from its address to the pods, as in a cloud whose load balancer
/// keeps the address of the Service.
pub(super) struct Cloud {
    /// Address of the load balancer; absent for a page that asks for none.
    address: Option<String>,
}

impl Cloud {
    /// Chooses an address that no other page has.
    pub(super) fn of(page: &str) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(200);
        let address = || format!("198.51.100.{}", NEXT.fetch_add(1, Relaxed));
        Self { address: page.contains("{.status.loadBalancer.").then(address) }
    }

    /// Waits for the Service that needs a load balancer, and gives it the address.
    #[track_caller]
    pub(super) fn serve(&self, namespace: &Namespace<'_>) {
        let Some(address) = &self.address else { return };
        let status = format!(r#"{{"status": {{"loadBalancer": {{"ingress": [{{"ip": "{address}"}}]}}}}}}"#);
        until("a Service needs a load balancer", || {
            let wanting = "--field-selector=spec.type=LoadBalancer";
            let services = namespace.kubectl(&["get", "services", wanting, "--output=name"]).ok();
            for service in services.lines() {
                let patch = ["patch", service, "--subresource=status", "--type=merge", "--patch"];
                namespace.kubectl(&[&patch[..], &[status.as_str()]].concat()).ok();
            }
            !services.is_empty()
        });
    }
}
