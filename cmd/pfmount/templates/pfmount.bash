# bash completion for pfmount, made by: pfmount completion bash

# The mount points of pfmount, one a line.
_pfmount_mounts() {
    local dir rest
    while read -r _ _ _ _ dir rest; do
        # mountinfo writes a space as \040; %b reads \0040.
        [[ $rest == *' - fuse.pfmount '* ]] && printf '%b\n' "${dir//\\/\\0}"
    done </proc/self/mountinfo
}

# Completes $cur as an image: its kind, or what follows the kind.
_pfmount_image() {
    case $cur in
    oci-layout:* | file:*)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "${cur#*:}")
        ;;
    *:*) ;;
    *)
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -W 'oci-layout: file:/// store:' -- "$cur")
        ;;
    esac
}

# Completes $cur as what an argument or the value of an option is.
_pfmount_as() {
    case $1 in
    image) _pfmount_image ;;
    source)
        _pfmount_image
        if [[ $cur != *:* ]]; then
            local -a kinds=("${COMPREPLY[@]}")
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            COMPREPLY+=("${kinds[@]}")
        fi
        ;;
    dir | DIR) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    FILE) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    mount)
        compopt -o filenames
        local dir
        while IFS= read -r dir; do
            [[ $dir == "$cur"* ]] && COMPREPLY+=("$dir")
        done < <(_pfmount_mounts)
        ;;
    shell) mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- "$cur") ;;
    WHAT) mapfile -t COMPREPLY < <(compgen -W 'auto none all' -- "$cur") ;;
    WHEN) mapfile -t COMPREPLY < <(compgen -W 'first always never' -- "$cur") ;;
    LEVEL) mapfile -t COMPREPLY < <(compgen -W 'fastest default better best' -- "$cur") ;;
    esac
}

# Sets what the command $1 takes: options, those with a value ("--option=KIND"), arguments.
_pfmount_takes() {
    case $1 in
{{- range .}}
    {{quote .Name}})
        options='{{range .Options}}{{range .Names}}{{.}} {{end}}{{end}}{{if not .Name}}-o {{end}}'
        valued='{{range .Options}}{{$v := .Value}}{{if $v}}{{range .Names}}{{.}}={{$v}} {{end}}{{end}}{{end}}'
        commands='{{range .Commands}}{{.}} {{end}}'
        places=({{quote (.Place 0)}} {{quote (.Place 1)}})
        ;;
{{- end}}
    esac
}

_pfmount() {
    local cur word joined='' command='' options='' valued='' commands='' kind='' i n=0
    local -a words=() places=()
    COMPREPLY=()
    # Bash splits words at : and =; what belongs together is put together again.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && -n $word && ($word == [:=]* || -n $joined) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == *[:=] ]] && joined=1 || joined=''
    done
    cur=${words[-1]}

    # The command, which may have one more inside.
    i=0
    case ${words[0]} in
{{- range .}}{{if and .Name (not (.Within))}}
    {{.Name}}) command={{.Name}} ;;
{{- end}}{{end}}
    esac
    if [[ -n $command && ${#words[@]} -gt 1 ]]; then
        i=1
        _pfmount_takes "$command"
        if [[ -n $commands && ${#words[@]} -gt 2 && " $commands" == *" ${words[1]} "* ]]; then
            command+=" ${words[1]}"
            i=2
        fi
    else
        command=''
    fi
    _pfmount_takes "$command"

    # What the words before this one leave to say.
    for (( ; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        kind=''
        if [[ -z $command && $word == -o ]]; then
            kind=-o
        elif [[ $word == -* ]]; then
            [[ " $valued" == *" $word="* ]] && kind=${valued#*"$word="} && kind=${kind%% *}
        else
            n=$((n + 1))
        fi
        # The option's value is the next word: this one, or one to pass over.
        [[ -n $kind && i -lt $((${#words[@]} - 2)) ]] && i=$((i + 1)) && kind=''
    done

    if [[ $kind == -o || -z $command && $cur == -o* && $cur != -o=* ]]; then
        local before=${cur%"${cur##*,}"} names=''
        [[ -z $before && $cur == -o* ]] && before=-o
        for word in $options; do
            [[ $word == --* && $word != --help && $word != --version && $word != --foreground ]] || continue
            word=${word#--}
            [[ " $valued" == *" --$word="* ]] && word+==
            names+=" $before$word"
        done
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -W "$names" -- "$cur")
        # Bash replaces only what stands behind the last = of the list.
        [[ $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*=}"}"}")
        return
    fi
    if [[ -n $kind ]]; then
        _pfmount_as "$kind"
    elif [[ $cur == --*=* ]]; then
        word=${cur%%=*}
        cur=${cur#*=}
        [[ " $valued" == *" $word="* ]] && kind=${valued#*"$word="} && _pfmount_as "${kind%% *}"
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ $n -eq 0 && -n $commands ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    else
        _pfmount_as "${places[n]}"
        if [[ -z $command && $n -eq 0 && ${#words[@]} -eq 1 ]]; then
            local -a kinds=("${COMPREPLY[@]}")
            mapfile -t COMPREPLY < <(compgen -W '{{range .}}{{if not .Within}}{{.Name}} {{end}}{{end}}' -- "$cur")
            [[ ${#kinds[@]} -gt 0 ]] || compopt +o nospace
            COMPREPLY+=("${kinds[@]}")
        fi
    fi
}

complete -F _pfmount pfmount
