{{- /* The Secret that holds the credentials. */ -}}
{{- define "surefoot.secret" -}}
{{ .Values.credentials.existingSecret | default "surefoot" }}
{{- end }}

{{- define "surefoot.labels" -}}
app.kubernetes.io/part-of: surefoot
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "surefoot.endpoint" -}}
{{ .Values.credentials.endpointUrl | default (printf "http://surefoot-minio.%s.svc:9000" .Release.Namespace) }}
{{- end }}

{{- /* What Argo's controller remembers results in. It lies in the controller's namespace, beside those of other namespaces. */ -}}
{{- define "surefoot.memory" -}}
surefoot-{{ .Release.Namespace }}-{{ .Release.Name }}
{{- end }}

{{- /* What Pod Security "restricted" asks of a container, and a read-only root. */ -}}
{{- define "surefoot.locked" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{- /* What it asks of a pod; the argument is the user's number. */ -}}
{{- define "surefoot.user" -}}
{runAsNonRoot: true, runAsUser: {{ . }}, runAsGroup: {{ . }}, fsGroup: {{ . }}, seccompProfile: {type: RuntimeDefault}}
{{- end }}

{{- /* One environment variable from the Secret: list of context, name, key. */ -}}
{{- define "surefoot.env" -}}
{name: {{ index . 1 }}, valueFrom: {secretKeyRef: {name: {{ include "surefoot.secret" (index . 0) }}, key: {{ index . 2 }}}}}
{{- end }}
