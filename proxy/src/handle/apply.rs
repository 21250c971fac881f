//! Gives a running proxy its configuration.

use std::sync::Arc;

use proxy_api::Configuration;
use tokio::sync::oneshot;

use super::{Ended, Proxy};
use crate::{
    core::{changes::in_place::Step, control::reports::Published},
    supervisor::Control,
};

impl Proxy {
    /// Applies a configuration and returns the resulting report.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn apply(&self, configuration: impl Into<Arc<Configuration>>) -> Result<Published, Ended> {
        self.ask_to_apply(configuration.into(), None).await
    }

    /// Like [`Proxy::apply`], for a configuration derived from an earlier one. If the earlier one is in force, only the
    /// objects that the step names are compared.
    ///
    /// # Errors
    /// The proxy has ended.
    pub async fn apply_step(&self, configuration: Arc<Configuration>, step: Step) -> Result<Published, Ended> {
        self.ask_to_apply(configuration, Some(step)).await
    }

    async fn ask_to_apply(&self, configuration: Arc<Configuration>, step: Option<Step>) -> Result<Published, Ended> {
        let (done, report) = oneshot::channel();
        let request = Control::Apply { configuration, step, done: Some(done) };
        self.control.send(request).await.map_err(|_| Ended)?;
        report.await.map_err(|_| Ended)
    }
}
