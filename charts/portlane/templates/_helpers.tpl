{{- define "portlane.name" -}}
portlane-operator
{{- end }}

{{- define "portlane.metrics" -}}
portlane-metrics
{{- end }}

{{- define "portlane.webhook" -}}
{{ include "portlane.name" . }}.{{ .Release.Namespace }}
{{- end }}

{{- define "portlane.selector" -}}
app.kubernetes.io/name: portlane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "portlane.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "portlane.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "portlane.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Permissions in every namespace that the operator watches. Each rule names its user in operator/src. */}}
{{- define "portlane.rules" -}}
# inputs/watch: the objects that forwards and gateways depend on.
- apiGroups: [portlane.dev]
  resources: [portforwards, forwardgateways]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods, services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [list, watch]
# outputs/status_writer.
- apiGroups: [portlane.dev]
  resources: [portforwards/status, forwardgateways/status]
  verbs: [patch]
# outputs/events: an Event that recurs is patched.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.deletionCost.enabled }}
# outputs/deletion_costs: the annotation controller.kubernetes.io/pod-deletion-cost. RBAC cannot name a field: see
# podPatchPolicy.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, patch]
{{- end }}
{{- if .Values.autoscaling.enabled }}
# inputs/watch and outputs/autoscalers: HPAs, and the workloads that they scale, whose managedFields name the owner of
# spec.replicas. An HPA is owned by its PortForward: blockOwnerDeletion needs permission to update the owner's finalizers.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets, replicasets]
  verbs: [get]
- apiGroups: [portlane.dev]
  resources: [portforwards/finalizers]
  verbs: [update]
{{- end }}
{{- end }}

{{/* Permissions where fleets run. Each child has the name of its gateway, so no rule can name a child. */}}
{{- define "portlane.fleetRules" -}}
# outputs/children and outputs/autoscalers: children are owned by their gateway (blockOwnerDeletion).
- apiGroups: [portlane.dev]
  resources: [forwardgateways/finalizers]
  verbs: [update]
# outputs/children: get, create and patch apply a child, delete removes one that the gateway no longer wants.
# inputs/watch: list and watch show by metadata whether another client changed or deleted a child.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, delete{{ if .Values.networkPolicy.fleets.enabled }}, create, patch{{ end }}]
{{- end }}

{{/* Whether fleets may run in a namespace of watchNamespaces: not empty if so. */}}
{{- define "portlane.runsFleets" -}}
{{- if and .root.Values.gateways.enabled (or (not .root.Values.gateways.namespaces) (has .namespace .root.Values.gateways.namespaces)) -}}
yes
{{- end -}}
{{- end }}

{{/* The value bindIP as it stands in HOST:PORT. */}}
{{- define "portlane.bindHost" -}}
{{ ternary (printf "[%s]" .Values.bindIP) .Values.bindIP (contains ":" .Values.bindIP) }}
{{- end }}

{{- define "portlane.podPatchPolicy" -}}
pods.{{ include "portlane.webhook" . }}
{{- end }}

{{- define "portlane.webhookPatchPolicy" -}}
webhook.{{ include "portlane.webhook" . }}
{{- end }}
