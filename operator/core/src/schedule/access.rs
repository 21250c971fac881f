//! Classifies the failures of a watch: which answers of the API server are definite, and when a namespace that refuses
//! the operator no longer blocks all others.

use std::time::Duration;

use crate::world::watched::Kind;

/// How long a namespace that was never listed may refuse before it counts as empty. An API server that has just started
/// refuses every client until it has read its roles.
const NEVER_LISTED: Duration = Duration::from_secs(10);
/// How long a namespace that was listed before may refuse before its objects no longer count. Roles that are deleted by
/// mistake, or created again, must not cost the namespace its listeners at once.
const LISTED: Duration = Duration::from_secs(300);
/// Further wait for kinds other than forwards, gateways and agents: proxies must receive the removal of their listeners before
/// the operator forgets their pods.
const LATER: Duration = Duration::from_secs(60);

/// The meaning of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The operator has no permission.
    Forbidden,
    /// The API server does not serve the kind.
    NotServed,
    /// The failure proves nothing about objects and permissions: the API server is unreachable, busy, starting, or
    /// hidden by a proxy.
    Unclear,
}

impl Failure {
    /// Classifies the status of an answer. A load balancer or an HTTP proxy in front of the API server has answers of
    /// its own, which are not definite.
    #[must_use]
    pub fn of(code: u16, reason: &str, message: &str) -> Self {
        match code {
            403 if reason == "Forbidden" => Self::Forbidden,
            // The API server answers the paths of unknown kinds with this plain text.
            404 if reason == "NotFound" || message.trim() == "404 page not found" => Self::NotServed,
            _ => Self::Unclear,
        }
    }
}

/// The reaction to a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Retry.
    Retry,
    /// The namespace has begun to refuse: report it, and retry with a list, which shows when permission returns.
    Refused,
    /// The namespace has refused for so long that its objects no longer count: report an empty list, and retry.
    Withdrawn,
}

/// The known permission of a watch.
#[derive(Debug, PartialEq, Eq)]
enum Permission {
    /// The watch is permitted, or nothing is known yet.
    Granted,
    /// The namespace has refused since its last list.
    Refused,
    /// The namespace still refuses, and its objects no longer count.
    Withdrawn,
}

/// Permission of one watch.
#[derive(Debug)]
pub struct Access {
    /// Whether the operator watches single namespaces, and may lose one of them.
    is_scoped: bool,
    /// Whether the operator waits for this watch. It does not wait for a watch that only shows drift; if such a watch
    /// counted as empty, every child of the namespace would look deleted.
    is_required: bool,
    /// Patience with a namespace that was listed before.
    listed_patience: Duration,
    /// Whether the watch has listed its namespace.
    is_listed: bool,
    /// The time since which every answer has been a refusal.
    since: Option<Duration>,
    permission: Permission,
}

impl Access {
    /// A watch that has listed nothing yet. `is_scoped` says whether the operator watches single namespaces. An
    /// operator that watches all namespaces and lacks a permission is installed incorrectly, and waits.
    #[must_use]
    pub fn new(kind: Kind, is_scoped: bool) -> Self {
        let leads = matches!(kind, Kind::Forwards | Kind::Gateways | Kind::Agents);
        let listed_patience = if leads { LISTED } else { LISTED + LATER };
        Self {
            is_scoped,
            is_required: kind.is_required(),
            listed_patience,
            is_listed: false,
            since: None,
            permission: Permission::Granted,
        }
    }

    /// Records that a request failed.
    pub fn failed(&mut self, failure: Failure, now: Duration) -> Judged {
        if !self.is_scoped || failure != Failure::Forbidden {
            self.since = None;
            return Judged::Retry;
        }
        let since = *self.since.get_or_insert(now);
        let patience = if self.is_listed { self.listed_patience } else { NEVER_LISTED };
        match self.permission {
            Permission::Granted => {
                self.permission = Permission::Refused;
                Judged::Refused
            }
            Permission::Refused if self.is_required && now.saturating_sub(since) >= patience => {
                self.permission = Permission::Withdrawn;
                Judged::Withdrawn
            }
            Permission::Refused | Permission::Withdrawn => Judged::Retry,
        }
    }

    /// Records that a list is complete. Returns whether the namespace had refused before.
    pub fn listed(&mut self) -> bool {
        self.is_listed = true;
        self.since = None;
        std::mem::replace(&mut self.permission, Permission::Granted) != Permission::Granted
    }
}
