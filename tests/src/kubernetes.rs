//! A real Kubernetes as a test sees it: start a cluster, take a namespace, apply, wait, look.

mod argo;
mod cluster;
mod control_plane;
mod held;
mod holder;
mod installation;
mod namespace;
mod node;
mod operated;
mod outpost;
mod output;
mod page;
mod rendering;
pub mod scene;
mod siege;

pub use argo::{Argo, resource_overrides};
pub use cluster::{Cluster, block_on};
pub use control_plane::ControlPlane;
pub use held::processes_of;
pub use holder::Holder;
pub use installation::{CHARTS, OPERATOR, install};
pub use namespace::{Namespace, Namespaced};
pub use node::Node;
pub use operated::{FleetPod, FleetProxy, Operator, expire_lease, roots};
pub use outpost::Outpost;
pub use output::CommandOutput;
pub use page::Page;
pub use rendering::{helm_command, kustomize};
pub use scene::{Fleet, Scene};
pub use siege::{Done, Held, Operation, Outcomes, Siege};
