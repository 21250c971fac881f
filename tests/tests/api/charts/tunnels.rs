//! What the chart grants where agents are.

use super::values::Case;

const OPERATOR: &str = "Deployment/portlane-operator";

pub(super) const TUNNELS: &[Case] = &[
    ("{}", &[(OPERATOR, "/env/PORTLANE_TUNNEL_ROOTS_SECRET", "null")]),
    (
        "{tunnels: {enabled: true, namespaces: [homes]}}",
        &[
            (OPERATOR, "/env/PORTLANE_TUNNEL_ROOTS_SECRET", "[portlane-tunnel-roots]"),
            ("Role/portlane-operator", "/rules/4/resourceNames", "[portlane-tunnel-roots]"),
            ("Role/portlane-operator", "/rules/4/verbs", "[get, update]"),
            ("Role/default:portlane-operator-agents", "/metadata/namespace", "homes"),
            ("Role/default:portlane-operator-agents", "/rules/0/resources", "[secrets]"),
            ("Role/default:portlane-operator-agents", "/rules/0/verbs", "[get, create, update]"),
            ("RoleBinding/default:portlane-operator-agents", "/subjects/0/namespace", "default"),
            ("ValidatingAdmissionPolicy/secrets.portlane-operator.default", "/spec/failurePolicy", "Fail"),
        ],
    ),
    (
        "{tunnels: {enabled: true}, secretsPolicy: {enabled: false}, claims: {enabled: true}, claimsPolicy: {enabled: \
         false}}",
        &[
            ("ValidatingAdmissionPolicy/secrets.portlane-operator.default", "", "null"),
            ("ValidatingAdmissionPolicyBinding/secrets.portlane-operator.default", "", "null"),
            ("ValidatingAdmissionPolicy/claims.portlane-operator.default", "", "null"),
            ("ValidatingAdmissionPolicyBinding/claims.portlane-operator.default", "", "null"),
        ],
    ),
    // The last of few rules.
    (
        "{tunnels: {enabled: true}, gateways: {enabled: false}, autoscaling: {enabled: false}, deletionCost: {enabled: \
         false}, injection: {enabled: false}, liveApi: {enabled: false}}",
        &[
            ("ClusterRole/default:portlane-operator", "/rules/8/resources", "[secrets]"),
            ("Role/default:portlane-operator-agents", "", "null"),
        ],
    ),
];
