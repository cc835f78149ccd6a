# fish completion for pfmount, made by: pfmount completion fish

# The mount points of pfmount.
function __pfmount_mounts
    string match -r -g '^\S+ \S+ \S+ \S+ (\S+) .* - fuse\.pfmount ' </proc/self/mountinfo | string unescape 2>/dev/null
end

# Kinds of images, and the folders behind a kind.
function __pfmount_images
    set -l word (commandline -ct)
    if set -l kind (string match -r '^(?:oci-layout:|file://)' -- $word)
        printf '%s\n' $kind(__fish_complete_directories (string replace -- $kind '' $word) '')
    else
        printf '%s\t%s\n' oci-layout: 'image layout on disk' file:/// 'folder of a file registry' store: 'image of the local store'
    end
end

# Whether the line has the command $argv, such as: cache prune; without one, whether it has none.
function __pfmount_is
    set -l words (commandline -opc)[2..]
    if not set -q argv[1]
        not contains -- "$words[1]" {{range .}}{{if not .Within}}{{.Name}} {{end}}{{end}}
        return
    end
    test "$words[1..$(count $argv)]" = "$argv"
end

# Whether exactly $argv[1] arguments (not options) of the line stand before the word that is completed.
function __pfmount_argument
    set -l n 0
    set -l words (commandline -opc)[2..]
    for word in $words
        string match -q -- '-*' $word; or set n (math $n + 1)
    end
    test $n -eq $argv[1]
end

complete -c pfmount -f
{{- range .}}{{if and .Name (not .Within)}}
complete -c pfmount -n '__pfmount_argument 0' -a {{.Name}} -d {{quote .Usage}}
{{- end}}{{end}}
{{- range .}}{{$c := .}}{{$is := printf "__pfmount_is %s" .Name}}
{{range .Options}}
complete -c pfmount -n {{quote $is}} -l {{.Long}}{{if .Short}} -s {{.Short}}{{end}}
{{- if .Value}}{{if eq .Value "FILE"}} -r -F{{else}} -x{{end}}{{if eq .Value "DIR"}} -a '(__fish_complete_directories)'{{else if .Words}} -a {{quote .Words}}{{end}}{{end}} -d {{quote .Usage}}
{{- end}}
{{- range .Commands}}
complete -c pfmount -n '{{$is}}; and __pfmount_argument 1' -a {{.}}
{{- end}}
{{- range $i, $place := .Places}}{{if $place}}
complete -c pfmount -n '{{$is}}; and __pfmount_argument {{$i}}' -a
{{- if eq $place "image"}} '(__pfmount_images)'
{{- else if eq $place "source"}} '(__pfmount_images; __fish_complete_directories)'
{{- else if eq $place "dir"}} '(__fish_complete_directories)'
{{- else if eq $place "mount"}} '(__pfmount_mounts)'
{{- else if eq $place "shell"}} 'bash zsh fish'{{end}}
{{- end}}{{end}}
{{- end}}
