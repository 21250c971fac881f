//! The clients of an attack, on one thread.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{Mutex, mpsc::UnboundedReceiver},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    Door, Force, LyingProxy, Speaks, Tally, datagrams,
    tls::Tls,
    ways::{Way, misbehave},
};

/// Longest attempt to connect. A pod may be gone.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest time on one connection.
const STAY: Duration = Duration::from_secs(120);
/// One of so many clients of a crowd floods, if the door takes datagrams: with ten bursts of each in a second.
const FLOODS: usize = 10;

/// What the clients share.
struct Ground {
    /// Gives one client at a time its turn to connect.
    pace: Mutex<Interval>,
    lying_proxies: Vec<LyingProxy>,
    tls: Tls,
    tally: Arc<Tally>,
}

/// Attacks the doors that are ordered, until there are no more orders. Returns false if the attack's limit came first.
pub(super) async fn fight(
    force: Force,
    lying_proxies: Vec<LyingProxy>,
    mut orders: UnboundedReceiver<Vec<Door>>,
    tally: Arc<Tally>,
) -> bool {
    let mut pace = interval(Duration::from_secs(1) / force.connects_per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ground = Arc::new(Ground { pace: Mutex::new(pace), lying_proxies, tls: Tls::new(), tally });
    let mut crowds: BTreeMap<SocketAddr, JoinSet<()>> = BTreeMap::new();
    let commanded = async {
        while let Some(doors) = orders.recv().await {
            // The clients of a set end with it.
            crowds.retain(|at, _| doors.iter().any(|door| door.at == *at));
            for door in doors {
                crowds.entry(door.at).or_insert_with(|| crowd(&ground, door, force.clients * door.crowd));
            }
        }
    };
    timeout(force.longest, commanded).await.is_ok()
}

fn crowd(ground: &Arc<Ground>, door: Door, clients: usize) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    if door.speaks == Speaks::Datagrams {
        for _ in 0..(clients / FLOODS).max(1) {
            crowd.spawn(datagrams::flood(door, ground.tally.clone()));
        }
        return crowd;
    }
    for way in Way::of_crowd(clients) {
        crowd.spawn(client(ground.clone(), door, way));
    }
    for proxy in ground.lying_proxies.iter().filter(|_| door.speaks == Speaks::Http2) {
        for _ in 0..proxy.streams() {
            crowd.spawn(proxy.clone().lie(door.at, ground.tally.clone()));
        }
    }
    crowd
}

/// One connection after the other.
async fn client(ground: Arc<Ground>, door: Door, way: Way) {
    loop {
        ground.pace.lock().await.tick().await;
        let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(door.at)).await else { continue };
        let _open = ground.tally.enter(door.name);
        // Whatever the server does about it: the next connection does the same.
        let _ = timeout(STAY, misbehave(way, door.speaks, stream, &ground.tls)).await;
    }
}
