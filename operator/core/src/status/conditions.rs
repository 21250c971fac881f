//! Conditions as the Kubernetes API conventions define them. A finding becomes a condition once it has a transition
//! time.

use crds::Condition as StatusCondition;

use crate::translate::verdict::Condition;

/// Longest message of a condition, in characters: one status stays far below the size limit of an object.
const MAX_MESSAGE: usize = 4096;

/// The type of a condition on a `PortForward`, a `ForwardGateway` or a `ForwardAgent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The spec is valid and the forward has the claims on all of its ports.
    Accepted,
    /// Every backend exists and may be used.
    ResolvedRefs,
    /// Every proxy that should run the spec has bound its listeners.
    Programmed,
    /// An instance of the agent has enrolled (agents only).
    Enrolled,
    /// An instance of the agent is connected (agents only).
    Connected,
    /// The sum of `Accepted`, `ResolvedRefs` and `Programmed`; of an agent, of `Accepted` and `Connected`.
    Ready,
    /// Every matching pod carries a proxy (sidecar placement only).
    Injected,
    /// Replicas follow the load (only with `spec.autoscaling`).
    ScalingActive,
    /// Proxies refuse sessions, or delay lookups, because the namespace or one source has used up its share, or they
    /// end a loop. Present only while true.
    LimitReached,
    /// Messages of durable listeners are kept; the reason says where (only with durable listeners).
    MessagesKept,
    /// The fleet of a gateway has not adopted changes of the installation. Present only while true.
    Outdated,
    /// The claims of pods that a smaller fleet no longer has are gone. Present only while false.
    ClaimsDrained,
    /// The pods of a fleet have their claims. Present only while false.
    ClaimsMounted,
    /// kstatus: the operator still works on the object. Present only while true.
    Reconciling,
    /// kstatus: only a person can fix the object. Present only while true.
    Stalled,
}

impl ConditionType {
    /// The value of `type` in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Enrolled => "Enrolled",
            Self::Connected => "Connected",
            Self::Ready => "Ready",
            Self::Injected => "Injected",
            Self::ScalingActive => "ScalingActive",
            Self::LimitReached => "LimitReached",
            Self::MessagesKept => "MessagesKept",
            Self::Outdated => "Outdated",
            Self::ClaimsDrained => "ClaimsDrained",
            Self::ClaimsMounted => "ClaimsMounted",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator does not know yet.
    Unknown,
}

impl Truth {
    /// The value of `status` in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// Reads the value of `status`; anything but `True` and `False` is `Unknown`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

/// A condition without its transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Type of the condition.
    pub type_: ConditionType,
    /// Status of the condition.
    pub status: Truth,
    /// The reason, one CamelCase word.
    pub reason: String,
    /// The cause and the remedy, for a person.
    pub message: String,
}

impl Finding {
    /// Makes a finding from its parts.
    #[must_use]
    pub fn new(type_: ConditionType, status: Truth, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn of(type_: ConditionType, condition: &Condition) -> Self {
        let status = if condition.status { Truth::True } else { Truth::False };
        Self::new(type_, status, condition.reason.as_str(), condition.message.clone())
    }
}

/// Turns findings into conditions. `lastTransitionTime` changes only if `status` differs from the one in `old`. `now`
/// is RFC 3339.
#[must_use]
pub fn conditions(
    old: &[StatusCondition],
    findings: Vec<Finding>,
    generation: Option<i64>,
    now: &str,
) -> Vec<StatusCondition> {
    let condition = |finding: Finding| {
        let (type_, status) = (finding.type_.as_str(), finding.status.as_str());
        let before = old.iter().find(|old| old.type_ == type_ && old.status == status);
        StatusCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            last_transition_time: before.map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone()),
            reason: finding.reason,
            message: finding.message.chars().take(MAX_MESSAGE).collect(),
        }
    };
    findings.into_iter().map(condition).collect()
}
