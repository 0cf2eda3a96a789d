{{- /* The Secret that holds the credentials. */ -}}
{{- define "surefoot.secret" -}}
{{ .Values.credentials.existingSecret | default "surefoot" }}
{{- end }}

{{- define "surefoot.labels" -}}
app.kubernetes.io/part-of: surefoot
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Where the object store is: as the values say, the chart's own, as your Secret says, AWS itself. */ -}}
{{- define "surefoot.endpoint" -}}
{{- if .Values.credentials.endpointUrl }}
{{- .Values.credentials.endpointUrl }}
{{- else if .Values.minio.enabled }}
{{- printf "http://surefoot-minio.%s.svc:9000" .Release.Namespace }}
{{- else }}
{{- $own := (lookup "v1" "Secret" .Release.Namespace (.Values.credentials.existingSecret | default "-")).data | default dict }}
{{- if not (or .Values.credentials.region (get $own "AWS_ENDPOINT_URL")) }}
{{- fail "credentials: endpointUrl must say where your own object store is, or region in AWS itself: helm sees no Secret that does" }}
{{- end }}
{{- get $own "AWS_ENDPOINT_URL" | b64dec | default (printf "https://s3.%s.amazonaws.com" .Values.credentials.region) }}
{{- end }}
{{- end }}

{{- /* The bucket of what Argo shows. */ -}}
{{- define "surefoot.artifacts" -}}
{{- if not (or .Values.artifactBucket .Values.minio.enabled) }}
{{- fail "artifactBucket: name a bucket of your own object store for the report that Argo shows; the store's will do" }}
{{- end }}
{{- .Values.artifactBucket | default "surefoot-argo" }}
{{- end }}

{{- /* By which a registry gives out the images. */ -}}
{{- define "surefoot.pull" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
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

{{- /* What a pod needs to trust database and store. */ -}}
{{- define "surefoot.trust" -}}
{{- if .Values.caSecret }}
env:
  - {name: SSL_CERT_FILE, value: /ca/ca.crt}
  - {name: PGSSLROOTCERT, value: /ca/ca.crt}
  {{- if not .Values.postgres.enabled }}
  - {name: PGSSLMODE, value: verify-full}
  {{- end }}
volumeMounts: [{name: ca, mountPath: /ca, readOnly: true}]
volumes: [{name: ca, secret: {secretName: {{ .Values.caSecret }}, items: [{key: ca.crt, path: ca.crt}]}}]
{{- end }}
{{- end }}

{{- /* What a pod needs to be given a role's keys. */ -}}
{{- define "surefoot.role" -}}
{{- with .Values.credentials.role }}
{{- if .enabled }}
env:
  # Asked where nothing else in the environment leads to a role.
  - {name: AWS_EC2_METADATA_SERVICE_ENDPOINT, value: "http://169.254.169.254"}
  {{- with .arn }}
  - {name: AWS_ROLE_ARN, value: {{ . | quote }}}
  {{- end }}
  {{- with .stsUrl }}
  - {name: AWS_ENDPOINT_URL_STS, value: {{ . | quote }}}
  {{- end }}
  {{- with .audience }}
  - {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /role/token}
volumeMounts: [{name: role, mountPath: /role, readOnly: true}]
volumes: [{name: role, projected: {sources: [{serviceAccountToken: {path: token, audience: {{ . | quote }}, expirationSeconds: 3600}}]}}]
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses beside the Deployment of an earlier chart: list of context, name. Helm would begin the new server while that one still runs. */ -}}
{{- define "surefoot.alone" -}}
{{- if lookup "apps/v1" "Deployment" (index . 0).Release.Namespace (index . 1) }}
{{- fail (printf "%s is a Deployment of an earlier chart, and its volume may be written by one server alone: kubectl -n %s delete --cascade=foreground deployment/%s first" (index . 1) (index . 0).Release.Namespace (index . 1)) }}
{{- end }}
{{- end }}
