package capture

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// secretNames are the names whose values are never recorded: the reference's default pattern, and
// "key" as a part of a name, which its help promises and its pattern forgets.
var secretNames = regexp.MustCompile(
	`(?i)(?:^|_)(?:token|secret|password|passwd|pwd|api_?key|key|auth|bearer)(?:_|$)`)

const redacted = "<redacted>"

// environment is the world.env blob: names sorted, the first of equal ones.
func environment(cwd string, environ []string) []byte {
	vars := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		name = lossy(name)
		if _, ok := vars[name]; ok || name == "" {
			continue
		}
		if secretNames.MatchString(name) {
			value = redacted
		}
		vars[name] = value
	}
	b := appendString([]byte(`{"kind":"env.v1","cwd":`), cwd)
	b = append(b, `,"vars":{`...)
	for i, name := range slices.Sorted(maps.Keys(vars)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, name), ':')
		b = appendString(b, vars[name])
	}
	return append(b, "}}"...)
}
