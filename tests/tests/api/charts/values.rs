//! The values of the chart: what each of them changes in the objects that helm renders.

use std::collections::BTreeMap;

use harness::CHARTS;
use serde::Deserialize;
use serde_json::Value;

use super::{monitoring::MONITORING, network::NETWORK, render, tunnels::TUNNELS};

/// Values, and what the rendered objects have with them: `KIND/NAME`, a JSON pointer, and the value there. Values are
/// YAML. `null` is nothing.
pub(super) type Case = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

const OPERATOR: &str = "Deployment/portlane-operator";

const NAMES: &[Case] = &[
    (
        "{nameOverride: gate, customMetrics: {enabled: true}}",
        &[
            ("Deployment/gate-operator", "/spec/selector/matchLabels/app.kubernetes.io~1name", "gate"),
            ("Service/gate-operator", "/spec/selector/app.kubernetes.io~1name", "gate"),
            ("Service/gate-metrics", "/metadata/namespace", "default"),
            ("ClusterRole/default:gate-view", "/kind", "ClusterRole"),
            ("Role/gate-operator", "/rules/1/resourceNames", "[gate-operator]"),
            ("Role/gate-operator", "/rules/3/resourceNames", "[gate-roots]"),
            ("Role/gate-operator", "/rules/4/resourceNames", "[gate-metrics, gate-metrics-ipv6]"),
        ],
    ),
    (
        "{fullnameOverride: gate, serviceAccount: {labels: {a: b}, annotations: {c: d}}}",
        &[
            ("Deployment/gate", "/spec/template/spec/serviceAccountName", "gate"),
            ("Deployment/gate", "/spec/template/spec/containers/0/env/2", "{name: PORTLANE_LEASE, value: gate}"),
            ("Deployment/gate", "/spec/template/spec/containers/0/env/3/value", "gate-roots"),
            ("Deployment/gate", "/spec/template/spec/containers/0/env/4/value", "gate.default.svc:9443"),
            ("MutatingWebhookConfiguration/gate.default", "/webhooks/0/clientConfig/service/name", "gate"),
            ("ServiceAccount/gate", "/metadata/labels/a", "b"),
            ("ServiceAccount/gate", "/metadata/annotations", "{c: d}"),
        ],
    ),
    (
        "{serviceAccount: {create: false, name: ours}, customMetrics: {enabled: true}}",
        &[
            ("ServiceAccount/ours", "", "null"),
            (OPERATOR, "/spec/template/spec/serviceAccountName", "ours"),
            ("ClusterRoleBinding/default:portlane-operator", "/subjects/0/name", "ours"),
            ("RoleBinding/portlane-operator", "/subjects/0/name", "ours"),
            ("RoleBinding/default-portlane-metrics", "/subjects/0/name", "ours"),
            (
                "ValidatingAdmissionPolicy/pods.portlane-operator.default",
                "/spec/matchConditions/0/expression",
                "request.userInfo.username == 'system:serviceaccount:default:ours'",
            ),
        ],
    ),
];

const IMAGES: &[Case] = &[
    (
        "{global: {imageRegistry: r.example.com/m/, imagePullSecrets: [a]}, imagePullSecrets: [b, {name: a}], image: \
         {tag: x}, proxyImage: {pullSecrets: [{name: c}]}}",
        &[
            (OPERATOR, "/spec/template/spec/containers/0/image", "r.example.com/m/portlane/operator:x"),
            (OPERATOR, "/spec/template/spec/containers/0/env/9/name", "PORTLANE_PROXY_IMAGE"),
            (OPERATOR, "/spec/template/spec/containers/0/env/9/value", "r.example.com/m/portlane/proxy:0.1.0"),
            (OPERATOR, "/spec/template/spec/imagePullSecrets", "[{name: a}, {name: b}]"),
            (OPERATOR, "/env/PORTLANE_PROXY_PULL_SECRETS", "['a,c']"),
        ],
    ),
    (
        "{global: {imageRegistry: r.example.com}, image: {registry: 'other:5000', repository: a/b}, proxyImage: \
         {digest: \
         'sha256:0123456789012345678901234567890123456789012345678901234567890123', tag: unused}}",
        &[
            (OPERATOR, "/spec/template/spec/containers/0/image", concat!("other:5000/a/b:", env!("CARGO_PKG_VERSION"))),
            (
                OPERATOR,
                "/spec/template/spec/containers/0/env/9/value",
                "r.example.com/portlane/proxy@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            ),
        ],
    ),
];

const PODS: &[Case] = &[
    (
        "{annotations: {a: '1'}, podLabels: {b: '2', app.kubernetes.io/name: theirs}, podAnnotations: {c: '3'}, \
         service: \
         {labels: {d: '4'}, annotations: {e: '5'}}, injection: {annotations: {f: '6'}}}",
        &[
            (OPERATOR, "/metadata/annotations", "{a: '1'}"),
            (OPERATOR, "/spec/template/metadata/labels/b", "'2'"),
            (OPERATOR, "/spec/template/metadata/labels/app.kubernetes.io~1name", "portlane"),
            (OPERATOR, "/spec/template/metadata/annotations", "{c: '3'}"),
            ("Service/portlane-operator", "/metadata/labels/d", "'4'"),
            ("Service/portlane-operator", "/metadata/annotations", "{e: '5'}"),
            ("MutatingWebhookConfiguration/portlane-operator.default", "/metadata/annotations", "{f: '6'}"),
        ],
    ),
    (
        "{extraArgs: [--max-proxies=7], extraEnv: [{name: RUST_LOG, value: debug}, {name: HTTPS_PROXY, value: p}], \
         extraVolumes: [{name: ca, configMap: {name: ca}}], extraVolumeMounts: [{name: ca, mountPath: /ca}], notices: \
         {secret: hook}}",
        &[
            (OPERATOR, "/spec/template/spec/containers/0/args", "[--max-proxies=7]"),
            (OPERATOR, "/env/RUST_LOG", "[debug]"),
            (OPERATOR, "/env/HTTPS_PROXY", "[p]"),
            (OPERATOR, "/env/PORTLANE_NOTICE_FORMAT", "[json]"),
            (OPERATOR, "/spec/template/spec/volumes/0/name", "notices"),
            (OPERATOR, "/spec/template/spec/volumes/1", "{name: ca, configMap: {name: ca}}"),
            (OPERATOR, "/spec/template/spec/containers/0/volumeMounts/1", "{name: ca, mountPath: /ca}"),
        ],
    ),
    (
        "{openshift: {enabled: true}, podSecurityContext: {fsGroup: 1}, securityContext: {runAsUser: 1}}",
        &[
            (
                OPERATOR,
                "/spec/template/spec/securityContext",
                "{runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}",
            ),
            (
                OPERATOR,
                "/spec/template/spec/containers/0/securityContext",
                "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}",
            ),
            (OPERATOR, "/env/PORTLANE_PROXY_CLUSTER_IDS", "['true']"),
        ],
    ),
    (
        "{podSecurityContext: {runAsUser: 1, seccompProfile: null}, securityContext: {readOnlyRootFilesystem: false}}",
        &[
            (OPERATOR, "/spec/template/spec/securityContext", "{runAsNonRoot: true, runAsUser: 1, runAsGroup: 65532}"),
            (OPERATOR, "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem", "false"),
        ],
    ),
    (
        "{nodeSelector: {a: b}, tolerations: [{operator: Exists}], affinity: {nodeAffinity: {}}, priorityClassName: \
         high, \
         updateStrategy: {type: Recreate}, dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1]}, resources: {limits: \
         {memory: 1Gi}}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: \
         DoNotSchedule}, \
         {maxSkew: 2, topologyKey: host, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}]}",
        &[
            (OPERATOR, "/spec/template/spec/nodeSelector", "{a: b}"),
            (OPERATOR, "/spec/template/spec/tolerations", "[{operator: Exists}]"),
            (OPERATOR, "/spec/template/spec/affinity", "{nodeAffinity: {}}"),
            (OPERATOR, "/spec/template/spec/priorityClassName", "high"),
            (OPERATOR, "/spec/strategy", "{type: Recreate}"),
            (OPERATOR, "/spec/template/spec/dnsPolicy", "None"),
            (OPERATOR, "/spec/template/spec/dnsConfig", "{nameservers: [192.0.2.1]}"),
            (OPERATOR, "/spec/template/spec/containers/0/resources/limits/memory", "1Gi"),
            (
                OPERATOR,
                "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels",
                "{app.kubernetes.io/name: portlane, app.kubernetes.io/instance: portlane, \
                 app.kubernetes.io/component: operator}",
            ),
            (OPERATOR, "/spec/template/spec/topologySpreadConstraints/1/labelSelector", "{}"),
        ],
    ),
];

const AGGREGATED: &[Case] = &[
    (
        "{}",
        &[
            ("APIService/v1alpha1.live.portlane.dev", "/spec/service/name", "portlane-metrics"),
            ("APIService/v1beta2.custom.metrics.k8s.io", "", "null"),
            (OPERATOR, "/env/PORTLANE_APIS", "[live]"),
            ("ClusterRole/default:portlane-view", "/rules/1/apiGroups", "[live.portlane.dev]"),
            ("ClusterRole/default:portlane-view", "/rules/1/verbs", "[get]"),
        ],
    ),
    (
        "{customMetrics: {enabled: true}}",
        &[
            ("APIService/v1alpha1.live.portlane.dev", "/spec/version", "v1alpha1"),
            (OPERATOR, "/env/PORTLANE_APIS", "['custom-metrics,live']"),
        ],
    ),
    (
        "{liveApi: {enabled: false}, customMetrics: {enabled: true}}",
        &[
            ("APIService/v1alpha1.live.portlane.dev", "", "null"),
            ("Service/portlane-metrics", "/kind", "Service"),
            (OPERATOR, "/env/PORTLANE_APIS", "[custom-metrics]"),
            ("ClusterRole/default:portlane-view", "/rules/1", "null"),
        ],
    ),
    (
        "{controllerClass: blue}",
        &[
            ("APIService/v1alpha1.live.portlane.dev", "", "null"),
            (OPERATOR, "/env/PORTLANE_CUSTOM_METRICS_ADDRESS", "null"),
        ],
    ),
    (
        "{controllerClass: blue, liveApi: {controllerClass: blue}}",
        &[("APIService/v1alpha1.live.portlane.dev", "/spec/service/namespace", "default")],
    ),
    (
        "{replicas: 0}",
        &[("APIService/v1alpha1.live.portlane.dev", "", "null"), ("Service/portlane-metrics", "", "null")],
    ),
];

const FLEETS: &[Case] = &[(
    "{gateways: {podTemplate: {priorityClassName: high, resources: {limits: {cpu: '2', memory: 1Gi}, requests: {cpu: 1}}}}}",
    &[(
        OPERATOR,
        "/env/PORTLANE_FLEET_POD_TEMPLATE",
        "['{\"priorityClassName\":\"high\",\"resources\":{\"limits\":{\"cpu\":\"2\",\"memory\":\"1Gi\"},\"requests\":{\"cpu\":1}}}']",
    )],
)];

const OBJECTS: &[Case] = &[
    (
        "{}",
        &[
            ("PodDisruptionBudget/portlane-operator", "/spec/maxUnavailable", "1"),
            ("CustomResourceDefinition/portforwards.portlane.dev", "", "null"),
            (OPERATOR, "/spec/strategy", "null"),
            (OPERATOR, "/spec/template/spec/dnsPolicy", "null"),
            ("ClusterRole/default:portlane-view", "/rules/0/verbs", "[get, list, watch]"),
            (
                "ClusterRole/default:portlane-view",
                "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-view",
                "'true'",
            ),
            (
                "ClusterRole/default:portlane-edit",
                "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-view",
                "null",
            ),
            (
                "ClusterRole/default:portlane-edit",
                "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-edit",
                "'true'",
            ),
            ("ClusterRole/default:portlane-edit", "/rules/0/resources", "[portforwards, forwardagents]"),
            ("ClusterRole/default:portlane-edit", "/rules/1", "null"),
            (
                "ClusterRole/default:portlane-admin",
                "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-edit",
                "null",
            ),
            (
                "ClusterRole/default:portlane-admin",
                "/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-admin",
                "'true'",
            ),
            ("ClusterRole/default:portlane-admin", "/rules/0/resources", "[forwardgateways]"),
        ],
    ),
    (
        "{rbac: {aggregate: {gateways: edit}}, podDisruptionBudget: {minAvailable: 50%, unhealthyPodEvictionPolicy: \
         AlwaysAllow}, crds: {enabled: true, keep: false}}",
        &[
            ("ClusterRole/default:portlane-admin", "", "null"),
            ("ClusterRole/default:portlane-edit", "/rules/1/resources", "[forwardgateways]"),
            ("ClusterRole/default:portlane-edit", "/rules/2/resources", "[forwardgateways/scale]"),
            ("PodDisruptionBudget/portlane-operator", "/spec/minAvailable", "50%"),
            ("PodDisruptionBudget/portlane-operator", "/spec/maxUnavailable", "null"),
            ("PodDisruptionBudget/portlane-operator", "/spec/unhealthyPodEvictionPolicy", "AlwaysAllow"),
            ("CustomResourceDefinition/portforwards.portlane.dev", "/metadata/annotations", "null"),
        ],
    ),
    (
        "{rbac: {aggregate: {enabled: false}}, podDisruptionBudget: {enabled: false}, crds: {enabled: true}}",
        &[
            ("ClusterRole/default:portlane-view", "", "null"),
            ("PodDisruptionBudget/portlane-operator", "", "null"),
            ("CustomResourceDefinition/portforwards.portlane.dev", "/spec/names/kind", "PortForward"),
            (
                "CustomResourceDefinition/forwardgateways.portlane.dev",
                "/metadata/annotations",
                "{helm.sh/resource-policy: keep}",
            ),
        ],
    ),
];

/// Every value that is younger than 0.1.0. `helm upgrade --reuse-values` brings the values of the version before, which
/// lack these.
const YOUNGER: &str = "{monitoring: null, global: null, nameOverride: null, fullnameOverride: null, commonLabels: \
                       null, commonAnnotations: null, crds: null, image: {registry: null, digest: null}, proxyImage: \
                       {registry: null, digest: null, pullSecrets: null}, serviceAccount: null, rbac: null, injection: \
                       {failurePolicy: null, timeoutSeconds: null, excludedNamespaces: null, annotations: null}, \
                       networkPolicy: {operator: {apiServerFrom: null}}, gateways: {podTemplate: null}, tunnels: null, \
                       protectedCIDRs: null, ports: null, claims: null, claimsPolicy: null, secretsPolicy: null, \
                       hostNetwork: null, dnsPolicy: null, dnsConfig: null, service: null, liveApi: null, \
                       podDisruptionBudget: null, extraArgs: null, extraEnv: null, extraVolumes: null, \
                       extraVolumeMounts: null, openshift: null, podSecurityContext: null, securityContext: null, \
                       annotations: null, podLabels: null, updateStrategy: null, topologySpreadConstraints: null}";

/// The objects of a render by `KIND/NAME`. A Deployment also has `env`: the values of each variable of its container.
fn objects(manifests: &str) -> BTreeMap<String, Value> {
    let documents = serde_yaml::Deserializer::from_str(manifests);
    let mut objects = BTreeMap::new();
    for mut object in documents.map(|document| Value::deserialize(document).expect("YAML")) {
        let (Some(kind), Some(name)) = (object["kind"].as_str(), object["metadata"]["name"].as_str()) else { continue };
        let key = format!("{kind}/{name}");
        let mut env = BTreeMap::<String, Vec<Value>>::new();
        let container = object.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
        for variable in container.into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default().to_owned();
            env.entry(name).or_default().push(variable["value"].clone());
        }
        if !env.is_empty() {
            object["env"] = serde_json::json!(env);
        }
        objects.insert(key, object);
    }
    objects
}

#[test]
fn each_value_of_the_chart_does_what_its_description_says() {
    for (values, rows) in [NAMES, IMAGES, PODS, AGGREGATED, FLEETS, TUNNELS, NETWORK, MONITORING, OBJECTS].concat() {
        let objects = objects(&render(CHARTS[1], values).ok());
        for (object, pointer, expected) in rows {
            let expected: Value = serde_yaml::from_str(expected).expect("YAML");
            let found = objects.get(*object).and_then(|object| object.pointer(pointer)).cloned().unwrap_or_default();
            assert_eq!(found, expected, "{object} {pointer} with {values}");
        }
    }
}

#[test]
fn every_object_has_the_common_labels_and_annotations() {
    let common =
        "commonLabels: {team: net, app.kubernetes.io/name: theirs}, commonAnnotations: {example.com/wave: '1'}";
    let all = format!(
        "{{{common}, crds: {{enabled: true}}, customMetrics: {{enabled: true}}, watchNamespaces: [a], {}}}",
        "monitoring: {podMonitor: {enabled: true}, rules: {enabled: true}, dashboards: {enabled: true}}"
    );
    for (chart, values) in [(CHARTS[1], all), (CHARTS[0], format!("{{{common}}}"))] {
        let objects = objects(&render(chart, &values).ok());
        assert!(objects.len() >= 2);
        for (name, object) in objects {
            let metadata = &object["metadata"];
            assert_eq!(metadata["labels"]["team"], "net", "{name}");
            assert_eq!(metadata["annotations"]["example.com/wave"], "1", "{name}");
            let ours = chart == CHARTS[0] || metadata["labels"]["app.kubernetes.io/name"] == "portlane";
            assert!(ours, "selectors need the label of {name}");
            if name.starts_with("CustomResourceDefinition/") {
                assert_eq!(metadata["annotations"]["helm.sh/resource-policy"], "keep", "{name}");
            }
        }
    }
}

#[test]
fn values_of_the_version_before_render_the_same_objects() {
    assert_eq!(render(CHARTS[1], YOUNGER).ok(), render(CHARTS[1], "{}").ok());
}
