{{/* Variables of the operator: its settings. */}}
{{- define "portlane.env" -}}
- name: PORTLANE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: PORTLANE_POD
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- with .Values.controllerClass }}
- name: PORTLANE_CONTROLLER_CLASS
  value: {{ . | quote }}
{{- end }}
- name: PORTLANE_LEASE
  value: {{ include "portlane.lease" . }}
- name: PORTLANE_ROOTS_SECRET
  value: {{ include "portlane.roots" . }}
{{- with include "portlane.servingSecret" . }}
- name: PORTLANE_SERVING_SECRET
  value: {{ . }}
{{- end }}
- name: PORTLANE_OPERATOR
  value: {{ include "portlane.name" . }}.{{ .Release.Namespace }}.svc:9443
- name: PORTLANE_STREAM_ADDRESS
  value: {{ include "portlane.address" (dict "root" . "name" "stream") }}
- name: PORTLANE_HEALTH_ADDRESS
  value: {{ include "portlane.address" (dict "root" . "name" "health") }}
{{- /* The root file system is read-only, and an emptyDir would stop `kubectl drain`. */}}
- name: PORTLANE_SOCKET
  value: /dev/shm/portlane-operator.sock
- name: PORTLANE_WEBHOOK_ADDRESS
  value: {{ include "portlane.address" (dict "root" . "name" "webhook") }}
- name: PORTLANE_PROXY_IMAGE
  value: {{ include "portlane.image" (dict "image" .Values.proxyImage "root" .) }}
- name: PORTLANE_PROXY_PULL_POLICY
  value: {{ .Values.proxyImage.pullPolicy | default "IfNotPresent" }}
{{- with include "portlane.pullSecretNames" (dict "root" . "own" .Values.proxyImage.pullSecrets) }}
- name: PORTLANE_PROXY_PULL_SECRETS
  value: {{ . | quote }}
{{- end }}
{{- if (.Values.openshift).enabled }}
- name: PORTLANE_PROXY_CLUSTER_IDS
  value: "true"
{{- end }}
- name: PORTLANE_ALLOW_ALL_SERVICES
  value: {{ .Values.allowAllServices | quote }}
{{- with .Values.protectedCIDRs }}
- name: PORTLANE_PROTECTED_CIDRS
  value: {{ join "," . | quote }}
{{- end }}
- name: PORTLANE_DELETION_COST
  value: {{ .Values.deletionCost.enabled | quote }}
- name: PORTLANE_FLEET_NAMESPACES
  value: {{ ternary (join "," .Values.gateways.namespaces | default "*") "" .Values.gateways.enabled | quote }}
{{- with .Values.gateways.podTemplate }}
- name: PORTLANE_FLEET_POD_TEMPLATE
  value: {{ toJson . | quote }}
{{- end }}
{{- if (.Values.claims).enabled }}
- name: PORTLANE_FLEET_CLAIMS
  value: "true"
{{- end }}
- name: PORTLANE_FLEET_ROLLOUT
  value: {{ .Values.gateways.rollout | default "OneByOne" }}
- name: PORTLANE_FLEET_BIND_IP
  value: {{ .Values.bindIP | quote }}
- name: PORTLANE_FLEET_NETWORK_POLICIES
  value: {{ .Values.networkPolicy.fleets.enabled | quote }}
{{- /* A peer without a selector is every source, for which a policy has no peers at all. */}}
{{- $from := .Values.networkPolicy.fleets.from }}
{{- if and $from (not (has (dict) $from)) }}
- name: PORTLANE_FLEET_NETWORK_POLICY_FROM
  value: {{ toJson $from | quote }}
{{- end }}
- name: PORTLANE_AUTOSCALING
  value: {{ .Values.autoscaling.enabled | quote }}
- name: PORTLANE_MAX_OBJECTS
  value: {{ int .Values.maxObjects | quote }}
- name: PORTLANE_MAX_PROXIES
  value: {{ int .Values.maxProxies | quote }}
{{- with .Values.doors }}
- name: PORTLANE_MAX_UNAUTHENTICATED
  value: {{ int .unauthenticated | quote }}
- name: PORTLANE_MAX_UNAUTHENTICATED_PER_SOURCE
  value: {{ int .unauthenticatedPerSource | quote }}
- name: PORTLANE_CONNECTIONS_PER_SECOND
  value: {{ int .connectionsPerSecond | quote }}
{{- end }}
{{- if .Values.injection.enabled }}
- name: PORTLANE_WEBHOOK
  value: {{ include "portlane.webhook" . }}
- name: PORTLANE_SIDECAR_RESOURCES
  value: {{ toJson .Values.injection.resources | quote }}
{{- end }}
{{- if include "portlane.aggregates" . }}
- name: PORTLANE_POD_IPS
  valueFrom: {fieldRef: {fieldPath: status.podIPs}}
- name: PORTLANE_CUSTOM_METRICS_ADDRESS
  value: {{ include "portlane.address" (dict "root" . "name" "customMetrics") }}
- name: PORTLANE_CUSTOM_METRICS_SERVICE
  value: {{ include "portlane.metrics" . }}
- name: PORTLANE_APIS
  value: {{ join "," (compact (list (ternary "custom-metrics" "" .Values.customMetrics.enabled) (ternary "live" "" (ne (include "portlane.servesLive" .) "")))) | quote }}
{{- end }}
{{- if .Values.notices.secret }}
- name: PORTLANE_NOTICE_URL_FILE
  value: /etc/portlane/notices/url
- name: PORTLANE_NOTICE_FORMAT
  value: {{ .Values.notices.format }}
{{- end }}
- name: RUST_LOG
  value: {{ .Values.log.level | quote }}
- name: PORTLANE_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- if (.Values.tunnels).enabled }}
- name: PORTLANE_TUNNEL_ROOTS_SECRET
  value: {{ include "portlane.tunnelRoots" . }}
{{- end }}
{{- with .Values.watchNamespaces }}
- name: PORTLANE_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
