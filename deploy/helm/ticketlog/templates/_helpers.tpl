{{- define "ticketlog.name" -}}
{{- if contains "ticketlog" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-ticketlog" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ticketlog.selector" -}}
app.kubernetes.io/name: ticketlog
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ticketlog.labels" -}}
{{ include "ticketlog.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ticketlog
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* A setting, of (list CONTEXT SECTION KEY DEFAULT). */ -}}
{{- define "ticketlog.setting" -}}
{{- $section := index (index . 0).Values.config (index . 1) | default dict -}}
{{- index $section (index . 2) | default (index . 3) -}}
{{- end }}

{{- /* The settings as TOML. Not by toToml, which writes 5000 as 5000.0. A value of null is left out. The workers listen on all
addresses of the pod, for the probes and for Prometheus; the NetworkPolicy keeps others out. */ -}}
{{- define "ticketlog.settings" -}}
{{- $config := deepCopy .Values.config }}
{{- $listen := dict "listen" (include "ticketlog.setting" (list . "http" "listen" "0.0.0.0:9464")) }}
{{- range $section, $settings := set $config "http" (merge $listen ($config.http | default dict)) }}
[{{ $section }}]
{{- range $key, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "ticketlog.value" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}

{{- define "ticketlog.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list }}
{{- range $name, $inner := . }}
{{- if not (kindIs "invalid" $inner) }}{{ $pairs = append $pairs (printf "%s = %s" ($name | quote) (include "ticketlog.value" $inner)) }}{{ end }}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- /* What cannot work is said before anything is installed: a file that no pod would have, a secret in a ConfigMap. */ -}}
{{- define "ticketlog.check" -}}
{{- $mounts := list "/run/secrets/ticketlog" }}
{{- range .Values.extraVolumeMounts }}{{ $mounts = append $mounts (trimSuffix "/" .mountPath) }}{{ end }}
{{- range $section, $settings := .Values.config }}
{{- range $key, $value := $settings }}
{{- $setting := printf "config.%s.%s" $section $key }}
{{- if and $value (or (hasSuffix "_file" $key) (has $key (list "tls_ca" "tls_certificate" "tls_key"))) }}
{{- $mounted := false }}
{{- range $mounts }}{{ if or (eq . $value) (hasPrefix (printf "%s/" .) $value) }}{{ $mounted = true }}{{ end }}{{ end }}
{{- if not $mounted }}{{ fail (printf "%s: nothing is mounted at %s; add a key to the Secrets, which are mounted at /run/secrets/ticketlog, or name it in extraVolumeMounts" $setting $value) }}{{ end }}
{{- end }}
{{- if and $value (has $setting (list "config.broker.uri" "config.store.uri" "config.event.mask_key")) }}
{{- fail (printf "%s: a secret does not belong in a ConfigMap; put it into the Secret and use %s_file: /run/secrets/ticketlog/KEY" $setting $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* shutdown.timeout in seconds; values.schema.json allows seconds and minutes. */ -}}
{{- define "ticketlog.shutdownSeconds" -}}
{{- $timeout := include "ticketlog.setting" (list . "shutdown" "timeout" "20s") }}
{{- if hasSuffix "min" $timeout }}{{ trimSuffix "min" $timeout | int | mul 60 }}{{ else }}{{ trimSuffix "s" $timeout | int }}{{ end }}
{{- end }}

{{- /* The memory of a worker: 96 MiB, and for each route five times broker.prefetch_bytes (messages as received and decompressed,
documents, commands, and what the allocator keeps); values.schema.json allows MiB and GiB. resources.limits.memory replaces it. */ -}}
{{- define "ticketlog.workerResources" -}}
{{- $budget := include "ticketlog.setting" (list . "broker" "prefetch_bytes" "32MiB") }}
{{- $mebibytes := 0 }}
{{- if hasSuffix "GiB" $budget }}{{ $mebibytes = trimSuffix "GiB" $budget | int | mul 1024 }}{{ else }}{{ $mebibytes = trimSuffix "MiB" $budget | int }}{{ end }}
{{- $routes := 1 }}
{{- range $name, $route := .Values.config.route }}{{ if $route }}{{ $routes = add $routes 1 }}{{ end }}{{ end }}
{{- $limit := dict "limits" (dict "memory" (printf "%dMi" (add 96 (mul $routes 5 $mebibytes)))) }}
{{- toYaml (mergeOverwrite $limit (deepCopy .Values.resources)) }}
{{- end }}

{{- /* What all pods have in common. */ -}}
{{- define "ticketlog.podLabels" -}}
{{- with .Values.podLabels }}{{ toYaml . }}
{{ end -}}
{{ include "ticketlog.labels" . }}
{{- end }}

{{- define "ticketlog.podAnnotations" -}}
# A change of the settings restarts the pods, the workers a few at a time.
checksum/config: {{ include "ticketlog.settings" . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ticketlog.podSpec" -}}
serviceAccountName: {{ include "ticketlog.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ticketlog.container" -}}
image: {{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.containerSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ticketlog.env" -}}
- { name: TICKETLOG_CONFIG, value: /etc/ticketlog/ticketlog.toml }
- { name: TICKETLOG_BROKER__URI_FILE, value: /run/secrets/ticketlog/broker-uri }
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ticketlog.mounts" -}}
- { name: config, mountPath: /etc/ticketlog, readOnly: true }
- { name: secret, mountPath: /run/secrets/ticketlog, readOnly: true }
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Of (list CONTEXT SECRET): all keys of the Secret are mounted, so certificates and further keys may be among them. */ -}}
{{- define "ticketlog.volumes" -}}
{{- $ := index . 0 -}}
- name: config
  configMap: { name: {{ include "ticketlog.name" $ }} }
- name: secret
  secret: { secretName: {{ index . 1 }}, defaultMode: 0440 }
{{- with $.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Of (list VALUES-OF-CONSOLE-OR-DESK NAME): where it writes, or nothing. */ -}}
{{- define "ticketlog.state" -}}
{{- $values := index . 0 -}}
{{- if $values.claim -}}
- name: state
  persistentVolumeClaim: { claimName: {{ $values.claim }} }
{{- else if $values.ephemeral -}}
- name: state
  emptyDir: { sizeLimit: 1Gi }
{{- end }}
{{- end }}
