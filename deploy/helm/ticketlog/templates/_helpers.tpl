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

{{- define "ticketlog.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The settings as TOML. Not by toToml, which writes 5000 as 5000.0. The workers listen on all addresses of the pod, for the
probes and for Prometheus; the NetworkPolicy keeps others out. */ -}}
{{- define "ticketlog.settings" -}}
{{- range $section, $settings := mergeOverwrite (dict "http" (dict "listen" "0.0.0.0:9464")) (deepCopy .Values.config) }}
[{{ $section }}]
{{- range $key, $value := $settings }}
{{ $key }} = {{ include "ticketlog.value" $value }}
{{- end }}
{{ end }}
{{- end }}

{{- define "ticketlog.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list }}
{{- range $name, $inner := . }}{{ $pairs = append $pairs (printf "%s = %s" ($name | quote) (include "ticketlog.value" $inner)) }}{{ end -}}
{ {{ join ", " $pairs }} }
{{- else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- define "ticketlog.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "ticketlog.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: ["ALL"] }
{{- end }}
