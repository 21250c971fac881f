{{/*
Every value that came after 0.1.0 has its default here as well as in values.yaml: `helm upgrade --reuse-values` brings the
values of the version before, which lack it.
*/}}

{{/* Name of the application: the label app.kubernetes.io/name, and the start of the names of objects. */}}
{{- define "portlane.application" -}}
{{ .Values.nameOverride | default "portlane" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "portlane.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ include "portlane.application" . }}-operator
{{- end -}}
{{- end }}

{{/* What other names begin with: the Secret with the CA, the Service of the aggregated APIs, the roles for users. */}}
{{- define "portlane.prefix" -}}
{{- if .Values.fullnameOverride -}}
{{ include "portlane.name" . }}
{{- else -}}
{{ include "portlane.application" . }}
{{- end -}}
{{- end }}

{{- define "portlane.metrics" -}}
{{ include "portlane.prefix" . }}-metrics
{{- end }}

{{/*
Whether the live API is registered: not empty if so. A cluster has one provider. Older aggregators ignore EndpointSlices, and a
registered API that nobody serves blocks the deletion of every namespace.
*/}}
{{- define "portlane.servesLive" -}}
{{- $live := .Values.liveApi | default dict -}}
{{- $isOurs := eq (dig "controllerClass" "" $live | default "") (.Values.controllerClass | default "") -}}
{{- $isServed := and (dig "enabled" true $live) $isOurs (gt (int .Values.replicas) 0) -}}
{{- if and $isServed (semverCompare ">=1.34-0" .Capabilities.KubeVersion.Version) -}}
yes
{{- end -}}
{{- end }}

{{/* Whether API servers aggregate any API of the operator: not empty if so. */}}
{{- define "portlane.aggregates" -}}
{{- if or .Values.customMetrics.enabled (include "portlane.servesLive" .) -}}
yes
{{- end -}}
{{- end }}

{{- define "portlane.lease" -}}
{{ include "portlane.name" . }}
{{- end }}

{{- define "portlane.roots" -}}
{{ include "portlane.prefix" . }}-roots
{{- end }}

{{/* The Secret with the roots of the tunnels. */}}
{{- define "portlane.tunnelRoots" -}}
{{ include "portlane.prefix" . }}-tunnel-roots
{{- end }}

{{/* The Secret with the certificate of webhook and aggregated APIs; empty: the operator signs it. */}}
{{- define "portlane.servingSecret" -}}
{{- $certificate := .Values.servingCertificate | default dict -}}
{{- $made := ternary (printf "%s-serving" (include "portlane.prefix" .)) "" (dig "certManager" "enabled" false $certificate) -}}
{{ dig "secretName" "" $certificate | default $made }}
{{- end }}

{{- define "portlane.webhook" -}}
{{ include "portlane.name" . }}.{{ .Release.Namespace }}
{{- end }}

{{/* The ServiceAccount of the operator. The namespace's `default` is nobody's: it would give the rights to every pod. */}}
{{- define "portlane.serviceAccount" -}}
{{- $account := .Values.serviceAccount | default dict -}}
{{- if dig "create" true $account -}}
{{ dig "name" "" $account | default (include "portlane.name" .) }}
{{- else -}}
{{ required "serviceAccount.create is false: set serviceAccount.name to the ServiceAccount that the operator runs as" (dig "name" "" $account) }}
{{- end -}}
{{- end }}

{{- define "portlane.selector" -}}
app.kubernetes.io/name: {{ include "portlane.application" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "portlane.labels" -}}
{{- $own := fromYaml (include "portlane.selector" .) -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{ toYaml (merge $own (.Values.commonLabels | default dict)) }}
{{- end }}

{{/* Labels and annotations of an object: root, and labels and annotations of its own. Selectors depend on some labels, so
the labels of the chart win. */}}
{{- define "portlane.meta" -}}
{{- $labels := merge (fromYaml (include "portlane.labels" .root)) (.labels | default dict) -}}
{{- $annotations := merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) -}}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Reference of an image. The registry of the image, or else global.imageRegistry, replaces the host of the repository. A digest
replaces the tag: some runtimes refuse both.
*/}}
{{- define "portlane.image" -}}
{{- $path := .image.repository -}}
{{- with .image.registry | default (.root.Values.global).imageRegistry -}}
{{- $path = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $path "") -}}
{{- end -}}
{{- if .image.digest -}}
{{ $path }}@{{ .image.digest }}
{{- else -}}
{{ $path }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Names of pull secrets, separated by commas: those of all images, and own. An entry is a name, or {name: NAME}. */}}
{{- define "portlane.pullSecretNames" -}}
{{- $names := list -}}
{{- range concat ((.root.Values.global).imagePullSecrets | default list) (.own | default list) -}}
{{- $names = append $names (kindIs "string" . | ternary . (dig "name" "" (kindIs "map" . | ternary . dict))) -}}
{{- end -}}
{{- join "," (uniq $names) -}}
{{- end }}

{{/* A port of the operator's pods: root, name. */}}
{{- define "portlane.port" -}}
{{- $default := dict "stream" 9443 "webhook" 9444 "customMetrics" 9445 "health" 9080 -}}
{{ int (get (merge (dict) (.root.Values.ports | default dict) $default) .name) }}
{{- end }}

{{/* An address to listen on, HOST:PORT: root, name. */}}
{{- define "portlane.address" -}}
{{ printf "%s:%s" (include "portlane.bindHost" .root) (include "portlane.port" .) | quote }}
{{- end }}

{{/* A number, or a percentage. A number of a values file is a float. */}}
{{- define "portlane.amount" -}}
{{ ternary (. | quote) (int . | toString) (and (kindIs "string" .) (hasSuffix "%" (toString .))) }}
{{- end }}

{{/* The security context of the pod. On OpenShift the ids are those of the namespace. */}}
{{- define "portlane.podSecurityContext" -}}
{{- $ids := dict "runAsUser" 65532 "runAsGroup" 65532 -}}
{{- $context := merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $ids -}}
{{- if kindIs "map" .Values.podSecurityContext -}}
{{- $context = .Values.podSecurityContext -}}
{{- end -}}
{{- if (.Values.openshift).enabled -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}

{{- define "portlane.securityContext" -}}
{{- $drop := dict "drop" (list "ALL") -}}
{{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" $drop -}}
{{- if kindIs "map" .Values.securityContext -}}
{{- $context = .Values.securityContext -}}
{{- end -}}
{{- if (.Values.openshift).enabled -}}
{{- $context = omit $context "runAsUser" "runAsGroup" -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}

{{/* Permissions in every namespace that the operator watches. Each rule names its user in operator/src. */}}
{{- define "portlane.rules" -}}
# inputs/watch: the objects that forwards, gateways and agents depend on.
- apiGroups: [portlane.dev]
  resources: [portforwards, forwardgateways, forwardagents]
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
  resources: [portforwards/status, forwardgateways/status, forwardagents/status]
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
# outputs/children: get, create and patch apply a child, delete removes one that the gateway no longer needs.
# inputs/watch: list and watch show by metadata whether another client changed or deleted a child.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
{{- if (.Values.claims).enabled }}
# For gateways with spec.durability; outputs/drainers: a Job sends what a claim has, then the claim is deleted. RBAC knows no
# labels: see claimsPolicy.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, watch, delete]
{{- end }}
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

{{/* Permissions where agents are. Each Secret has the name of its agent, so no rule can name a Secret. */}}
{{- define "portlane.agentRules" -}}
# outputs/enrolments: the Secret of an agent, with its join string and its ledger. For what is written see secretsPolicy.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
{{- end }}

{{/* Whether agents may be in a namespace of watchNamespaces: not empty if so. */}}
{{- define "portlane.hasAgents" -}}
{{- $tunnels := .root.Values.tunnels | default dict -}}
{{- if and $tunnels.enabled (or (not $tunnels.namespaces) (has .namespace $tunnels.namespaces)) -}}
yes
{{- end -}}
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

{{- define "portlane.claimsPolicy" -}}
claims.{{ include "portlane.webhook" . }}
{{- end }}

{{- define "portlane.secretsPolicy" -}}
secrets.{{ include "portlane.webhook" . }}
{{- end }}

{{/* Interval and timeout of scrapes: the values of a monitor. */}}
{{- define "portlane.scrape" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- end }}

{{/* What every installation that serves the same objects in all namespaces has under the same name. */}}
{{- define "portlane.claim" -}}
portlane.dev:serves-all-namespaces-{{ with .Values.controllerClass }}of-controllerClass-{{ . }}{{ else }}without-controllerClass{{ end }}
{{- end }}
