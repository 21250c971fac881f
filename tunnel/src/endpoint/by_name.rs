//! One port for several endpoints, such as a sidecar's: the server name of a connection selects the endpoint.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use proxy_api::doors::Bounds;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tunnel_core::identity::{Dial, EndpointId};

use super::Endpoint;
use super::hand_over::meant;
use super::listen::{Authenticator, Begun, Door, Place, accept, welcome};
use crate::handshake::PATIENCE;

/// The endpoint of one id.
struct Behind<A> {
    endpoint: Rc<Endpoint>,
    authenticator: Rc<A>,
}

impl<A> Clone for Behind<A> {
    fn clone(&self) -> Self {
        Self { endpoint: self.endpoint.clone(), authenticator: self.authenticator.clone() }
    }
}

/// The endpoints behind one port, by the ids that agents dial as sidecars. Connections are never handed over.
pub struct ByName<A> {
    endpoints: RefCell<BTreeMap<EndpointId, Behind<A>>>,
    /// Connections that reached no endpoint, by reason.
    closed: RefCell<BTreeMap<&'static str, u64>>,
}

impl<A> fmt::Debug for ByName<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").finish_non_exhaustive()
    }
}

impl<A> Default for ByName<A> {
    fn default() -> Self {
        Self { endpoints: RefCell::default(), closed: RefCell::default() }
    }
}

impl<A> ByName<A> {
    /// Adds an endpoint, which answers to its id from now on.
    pub fn insert(&self, endpoint: Rc<Endpoint>, authenticator: A) {
        let id = endpoint.settings.id.clone();
        let behind = Behind { endpoint, authenticator: Rc::new(authenticator) };
        self.endpoints.borrow_mut().insert(id, behind);
    }

    /// Removes the endpoint of this id. Existing connections stay.
    pub fn remove(&self, id: &EndpointId) {
        self.endpoints.borrow_mut().remove(id);
    }

    /// Connections that reached no endpoint, by reason.
    pub fn closed(&self) -> BTreeMap<&'static str, u64> {
        self.closed.borrow().clone()
    }

    fn find(&self, dial: Option<&Dial>) -> Result<Behind<A>, &'static str> {
        let found = match dial {
            Some(Dial::Sidecar(id)) => self.endpoints.borrow().get(id).cloned(),
            Some(Dial::Any | Dial::Endpoint(_)) | None => None,
        };
        found.ok_or("unknown_endpoint")
    }

    fn count(&self, reason: &'static str) {
        *self.closed.borrow_mut().entry(reason).or_default() += 1;
    }
}

/// Like [`listen_holding`](super::listen_holding), for the endpoints behind one port.
pub async fn listen_by_name<A: Authenticator, H: 'static>(
    names: Rc<ByName<A>>,
    listener: TcpListener,
    bounds: Bounds,
    hold: impl Fn() -> H + 'static,
) {
    let door = Door::new(bounds);
    let begin = move |tcp, from| {
        let place = door.enter(from, |reason| names.count(reason))?;
        let id = place.id;
        let kept = hold();
        let task = Box::pin(serve(names.clone(), tcp, from, place));
        let task = async move {
            task.await;
            drop(kept);
        };
        Some(Begun { door: door.clone(), id, task })
    };
    accept(listener, begin).await;
}

async fn serve<A: Authenticator>(names: Rc<ByName<A>>, mut tcp: TcpStream, from: SocketAddr, place: Place) {
    place.turn().await;
    let deadline = Instant::now() + PATIENCE;
    let meant = timeout_at(deadline, meant(&mut tcp)).await.unwrap_or(Err("timeout"));
    match meant.and_then(|meant| names.find(meant.dial.as_ref())) {
        Ok(Behind { endpoint, authenticator }) => {
            Box::pin(welcome(&endpoint, &*authenticator, tcp, from, place, deadline)).await;
        }
        Err(reason) => {
            names.count(reason);
            tracing::debug!(%from, reason, "a connection was closed before an agent was admitted");
        }
    }
}
