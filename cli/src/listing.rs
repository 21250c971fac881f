//! Arguments of `conns` that are the same for a process on this machine and for a cluster.

use clap::{Args, ValueEnum};
use kubectl_core::{
    conns::{self, Clients, Query},
    live::SessionId,
};

use crate::output::Output;

/// Which sessions are listed, and how.
#[derive(Args, Debug)]
pub struct Listing {
    /// Order of the list.
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,
    /// Only sessions of clients in this network, or of this address.
    #[arg(long, value_name = "CIDR")]
    client: Option<Clients>,
    /// Only the session with this id, which its records in the access log have.
    #[arg(long, value_name = "ID")]
    pub session: Option<SessionId>,
    /// Maximum number of sessions to show.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Show the list every two seconds until the program is ended.
    #[arg(short, long)]
    pub watch: bool,
    /// Format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl Listing {
    /// The selection and the order of the sessions to show.
    #[must_use]
    pub fn query(&self) -> Query {
        let sort = match self.sort {
            Sort::Bytes => conns::Sort::Bytes,
            Sort::Age => conns::Sort::Age,
            Sort::Client => conns::Sort::Client,
            Sort::Forward => conns::Sort::Forward,
            Sort::Pod => conns::Sort::Pod,
            Sort::Endpoint => conns::Sort::Endpoint,
        };
        Query { sort, client: self.client, session: self.session, limit: self.limit }
    }
}

/// Orders of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Most bytes in both directions.
    Bytes,
    /// Oldest.
    Age,
    /// Address of the client.
    Client,
    /// Listener by name.
    Forward,
    /// Pod by name.
    Pod,
    /// Address of the endpoint.
    Endpoint,
}
