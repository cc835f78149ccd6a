# fish completion for pfmount, made by: pfmount completion fish
function __pfmount_complete
    set -l before (commandline -opc)[2..]
    set -l word (commandline -ct | string unescape)
    set -l found (pfmount $before "$word" --generate-bash-completion 2>/dev/null)
    if not set -q found[1]
        set -l parts (string match -r -g '^(file://|.*[:=]|)(.*)$' -- "$word")
        set found $parts[1](__fish_complete_path $parts[2])
    end
    printf '%s\n' $found
end
complete -c pfmount -f -a '(__pfmount_complete)'
