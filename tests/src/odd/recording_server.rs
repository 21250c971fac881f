//! A server that sees at which of its machine's addresses it is reached.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::Machine;
use crate::PATIENCE;

/// Connections by the address that they reached.
type Reached = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// A server that greets with the address at which it was reached, then echoes. It runs until this process ends.
pub struct RecordingServer(Reached);

impl RecordingServer {
    /// Starts a server at an address of a machine; `::` is every address of both families.
    #[must_use]
    pub fn start(machine: &Machine, address: &str, port: u16) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let listener = machine.within(|| TcpListener::bind((address, port))).expect("bind");
        let reached = Reached::default();
        let counts = Arc::clone(&reached);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(local) = stream.local_addr() else { continue };
                let own = local.ip().to_canonical();
                *counts.lock().expect("unpoisoned").entry(own).or_default() += 1;
                // A client that leaves is no failure.
                thread::spawn(move || serve(&stream, own).is_ok());
            }
        });
        Self(reached)
    }

    /// How many connections each address has got so far.
    #[must_use]
    pub fn reached(&self) -> BTreeMap<IpAddr, usize> {
        self.0.lock().expect("unpoisoned").clone()
    }
}

fn serve(stream: &TcpStream, own: IpAddr) -> io::Result<()> {
    let (mut from, mut to) = (stream, stream);
    from.set_read_timeout(Some(PATIENCE))?;
    write!(to, "{own}: ")?;
    io::copy(&mut from, &mut to)?;
    Ok(())
}
