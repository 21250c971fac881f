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

{{/* Permissions in every namespace that the operator watches. */}}
{{- define "portlane.rules" -}}
- apiGroups: [portlane.dev]
  resources: [portforwards, forwardgateways]
  verbs: [get, list, watch]
- apiGroups: [portlane.dev]
  resources: [portforwards/status, forwardgateways/status]
  verbs: [patch]
# An owner reference with blockOwnerDeletion needs permission to update the finalizers of the owner.
- apiGroups: [portlane.dev]
  resources: [forwardgateways/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if .Values.deletionCost.enabled }}
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [get, list, watch]
# Objects that the operator creates for a gateway. RBAC knows no labels: the operator lists and watches
# ServiceAccounts, PodDisruptionBudgets and NetworkPolicies with its own label only, and asks for their metadata alone.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
# HPAs, and the workloads that they scale: their managedFields name the owner of spec.replicas.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets, replicasets]
  verbs: [get]
- apiGroups: [portlane.dev]
  resources: [portforwards/finalizers]
  verbs: [update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
