//! App containers in a crash loop. Listeners are bound before the app starts, so an app may fail because a listener
//! has a port that the app wants and nobody declared.

/// A container that kubelet restarts again and again, as its status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashLoop {
    /// Name of the container.
    pub container: String,
    /// Exit code of its last run.
    pub exit_code: i32,
}

impl CrashLoop {
    /// The state of the container and what a person can do.
    pub(crate) fn words(&self) -> String {
        let Self { container, exit_code } = self;
        format!(
            "container {container} is in a crash loop (exit code {exit_code}): if its log says that an address is in use, \
             declare its ports in the pod template (containerPort, or the annotation portlane.dev/app-ports)"
        )
    }
}
