# bash completion for pfmount, made by: pfmount completion bash
_pfmount() {
    local i cur joined='' line
    local -a words=()
    # Bash splits words at : and =; what belongs together is put together again.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        cur=${COMP_WORDS[i]//\\/}
        if [[ ${#words[@]} -gt 0 && -n $cur && ($cur == [:=]* || -n $joined) ]]; then
            words[-1]+=$cur
        else
            words+=("$cur")
        fi
        [[ $cur == *[:=] ]] && joined=1 || joined=''
    done
    # Bash replaces only what it takes for the word.
    cur=${COMP_WORDS[COMP_CWORD]//\\/}
    [[ $cur == [:=]* ]] && cur=''
    cur=${words[-1]%"$cur"}
    COMPREPLY=()
    while IFS= read -r line; do
        [[ $line == *[:=/] ]] && compopt -o nospace
        line=${line#"$cur"}
        [[ $line == *[^[:alnum:]_.,:=/@-]* ]] && printf -v line %q "$line"
        COMPREPLY+=("$line")
    done < <(pfmount "${words[@]}" --generate-bash-completion 2>/dev/null)
}
complete -o default -F _pfmount pfmount
