#compdef pfmount
# zsh completion for pfmount, made by: pfmount completion zsh
_pfmount() {
    local -a found
    found=(${(f)"$(pfmount "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" --generate-bash-completion 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[:=/]}
        compadd -- ${found:#*[:=/]}
    else
        compset -P 'file://' || compset -P '*[:=]'
        _files
    fi
}
if [[ $funcstack[1] == _pfmount ]]; then _pfmount "$@"; else compdef _pfmount pfmount; fi
