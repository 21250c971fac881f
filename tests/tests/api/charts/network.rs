//! Who may connect to the operator and to fleets, and to which addresses fleets do not connect, by the chart.

use super::values::Case;

const OPERATOR: &str = "Deployment/portlane-operator";

pub(super) const NETWORK: &[Case] = &[
    (
        "{hostNetwork: true, ports: {stream: 19443, webhook: 19444, customMetrics: 19445, health: 19080}, \
         customMetrics: \
         {enabled: true}, networkPolicy: {operator: {metricsFrom: [{podSelector: {}}], apiServerFrom: [{ipBlock: \
         {cidr: \
         192.0.2.0/28}}]}, fleets: {enabled: true, from: [{podSelector: {}}]}}}",
        &[
            (OPERATOR, "/spec/template/spec/hostNetwork", "true"),
            (OPERATOR, "/spec/template/spec/dnsPolicy", "ClusterFirstWithHostNet"),
            (OPERATOR, "/spec/strategy/rollingUpdate", "{maxSurge: 0, maxUnavailable: 1}"),
            (OPERATOR, "/spec/template/spec/containers/0/ports/0/containerPort", "19443"),
            (OPERATOR, "/spec/template/spec/containers/0/ports/1/containerPort", "19444"),
            (OPERATOR, "/env/PORTLANE_STREAM_ADDRESS", "['[::]:19443']"),
            (OPERATOR, "/env/PORTLANE_WEBHOOK_ADDRESS", "['[::]:19444']"),
            (OPERATOR, "/env/PORTLANE_CUSTOM_METRICS_ADDRESS", "['[::]:19445']"),
            (OPERATOR, "/env/PORTLANE_HEALTH_ADDRESS", "['[::]:19080']"),
            (OPERATOR, "/env/PORTLANE_FLEET_NETWORK_POLICY_FROM", "['[{\"podSelector\":{}}]']"),
            (OPERATOR, "/env/PORTLANE_OPERATOR", "['portlane-operator.default.svc:9443']"),
            ("Service/portlane-metrics", "/spec/ports/0/targetPort", "19445"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/0/ports/0/port", "19443"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/ports/0/port", "19444"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/ports/1/port", "19445"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/from", "[{ipBlock: {cidr: 192.0.2.0/28}}]"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/2/ports/0/port", "19080"),
        ],
    ),
    (
        "{injection: {failurePolicy: Fail, timeoutSeconds: 9, excludedNamespaces: [storage, kube-system]}}",
        &[
            ("MutatingWebhookConfiguration/portlane-operator.default", "/webhooks/1/failurePolicy", "Fail"),
            ("MutatingWebhookConfiguration/portlane-operator.default", "/webhooks/1/timeoutSeconds", "9"),
            (
                "MutatingWebhookConfiguration/portlane-operator.default",
                "/webhooks/0/namespaceSelector/matchExpressions/0/values",
                "[kube-system, default, storage]",
            ),
        ],
    ),
    (
        "{protectedCIDRs: [203.0.113.10/32, '2001:db8:100::/48']}",
        &[(OPERATOR, "/env/PORTLANE_PROTECTED_CIDRS", "['203.0.113.10/32,2001:db8:100::/48']")],
    ),
    // Who may connect where the values name nobody: streams and scrapes have peers, requests of the API server have none.
    // Kubelet uses no port.
    (
        "{}",
        &[
            ("NetworkPolicy/portlane-operator", "/spec/ingress/0/from/0/namespaceSelector", "{}"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/ports/0/port", "9444"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/ports/1/port", "9445"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/1/from", "null"),
            ("NetworkPolicy/portlane-operator", "/spec/ingress/2", "null"),
            (OPERATOR, "/env/PORTLANE_FLEET_NETWORK_POLICIES", "['false']"),
            (OPERATOR, "/env/PORTLANE_SOCKET", "[/dev/shm/portlane-operator.sock]"),
            (
                OPERATOR,
                "/spec/template/spec/containers/0/livenessProbe/exec/command",
                "[/portlane-operator, probe, live]",
            ),
            (
                OPERATOR,
                "/spec/template/spec/containers/0/readinessProbe/exec/command",
                "[/portlane-operator, probe, ready]",
            ),
            (OPERATOR, "/env/PORTLANE_PROTECTED_CIDRS", "null"),
        ],
    ),
    // A peer without a selector is everybody, for which the operator leaves `from` out: the API server refuses such a peer.
    (
        "{networkPolicy: {fleets: {enabled: true, from: [{}, {podSelector: {}}]}}}",
        &[
            (OPERATOR, "/env/PORTLANE_FLEET_NETWORK_POLICIES", "['true']"),
            (OPERATOR, "/env/PORTLANE_FLEET_NETWORK_POLICY_FROM", "null"),
        ],
    ),
];
