#compdef pfmount
# zsh completion for pfmount, made by: pfmount completion zsh

_pfmount_mounts() {
    local -a dirs
    local line
    while read -r line; do
        # mountinfo writes a space as \040; print -b would not read it without the 0.
        [[ $line == *' - fuse.pfmount '* ]] && dirs+=("$(printf '%b' "${${(s: :)line}[5]//\\/\\0}")")
    done </proc/self/mountinfo
    _wanted mounts expl 'mount point' compadd -a dirs
}

_pfmount_image() {
    if compset -P 'oci-layout:' || compset -P 'file://'; then
        _files -/
    else
        _wanted images expl 'kind of image' compadd -S '' -- oci-layout: file:/// store:
    fi
}

_pfmount_source() {
    _alternative 'images:image:_pfmount_image' 'dirs:directory:_files -/'
}

_pfmount_commands() {
    local -a commands=(
{{- range .}}{{if and .Name (not .Within)}}
        '{{.Name}}:{{zsh .Usage}}'
{{- end}}{{end}}
    )
    _describe -t commands command commands
}

_pfmount_first() {
    _alternative 'commands:command:_pfmount_commands' 'images:image:_pfmount_image'
}

# The options of mount -o.
_pfmount_o() {
    _values -s , 'mount option' \
{{- with index . 0}}{{range .Options}}{{if and (ne .Long "help") (ne .Long "version") (ne .Long "foreground")}}
        '{{.Long}}[{{zsh .Usage}}]{{if .Value}}:{{zsh .Value}}:{{end}}' \
{{- end}}{{end}}{{end}}
        'ro[always so]'
}

_pfmount() {
    local curcontext=$curcontext state line expl command=''
    local -a words_before=("${(@)words[2,CURRENT-1]}")
    case $words_before[1] in
{{- range .}}{{if and .Name (not .Within)}}
    {{.Name}}) command={{.Name}} ;;
{{- end}}{{end}}
    esac
    if [[ -n $command ]]; then
        shift words
        (( CURRENT-- ))
    fi
    case "$command $words[2]" in
{{- range .}}{{if .Within}}
    {{quote .Name}}) (( CURRENT > 2 )) && { shift words; (( CURRENT-- )); command={{quote .Name}} } ;;
{{- end}}{{end}}
    esac
    case $command in
{{- range .}}
    {{quote .Name}})
        _arguments -s \
{{- range .Options}}{{$o := .}}{{range .Names}}
            '{{if eq $o.Long "key-file" "parent" "mount-from"}}*{{end}}{{.}}{{if and $o.Value (gt (len .) 2)}}={{end}}[{{zsh $o.Usage}}]{{template "value" $o}}' \
{{- end}}{{end}}
{{- if not .Name}}
            '*-o+[mount options]:mount options:_pfmount_o' \
            '1:image:_pfmount_first' '2:mount point:_files -/'
{{- else if .Commands}}
            '1:command:({{join .Commands " "}})'
{{- else}}
            {{template "place" (.Place 0)}} {{template "place2" (.Place 1)}}
{{- end}}
        ;;
{{- end}}
    esac
}

_pfmount "$@"
{{define "value"}}{{if .Value}}:{{zsh .Value}}:{{if eq .Value "DIR"}}_files -/{{else if eq .Value "FILE"}}_files{{else if .Words}}({{.Words}}){{end}}{{end}}{{end}}
{{define "place"}}{{if eq . "image"}}'1:image:_pfmount_image'{{else if eq . "source"}}'1:source:_pfmount_source'{{else if eq . "mount"}}'1:mount point:_pfmount_mounts'{{else if eq . "shell"}}'1:shell:(bash zsh fish)'{{else}}'1: : '{{end}}{{end}}
{{define "place2"}}{{if eq . "image"}}'2:image:_pfmount_image'{{else}}'*: : '{{end}}{{end}}
