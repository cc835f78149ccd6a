package registry

import (
	"fmt"
	"iter"
	"strings"
)

// Bounds of the challenges in one answer. Registries send some 200 bytes with three parameters.
const (
	maxChallenge       = 16 << 10 // bytes
	maxChallengeParams = 32       // and challenges
)

// challenge is one way in which a registry wants callers to authenticate.
// https://www.rfc-editor.org/rfc/rfc9110.html#section-11.6.1
type challenge struct {
	scheme string
	first  string   // what follows the scheme up to the first comma
	params []string // after it
}

// text is all of the challenge, scheme included.
func (c challenge) text() string {
	first := strings.TrimSpace(c.scheme + " " + c.first)
	return strings.Join(append([]string{first}, c.params...), ", ")
}

// errChallenge says that challenges are beyond their bounds.
var errChallenge = fmt.Errorf("a challenge of more than %d bytes or %d parameters",
	maxChallenge, maxChallengeParams)

// parseChallenges takes the values of WWW-Authenticate apart. Each may hold several challenges,
// separated by the same commas as their parameters.
func parseChallenges(values []string) ([]challenge, error) {
	size, params := 0, 0
	for _, value := range values {
		if size += len(value); size > maxChallenge {
			return nil, errChallenge
		}
	}
	var list []challenge
	for _, value := range values {
		fresh := true // a challenge never goes on in the next value
		for piece := range splitQuoted(value) {
			word := piece[:tokenEnd(piece)]
			rest := strings.TrimLeft(piece[len(word):], " \t")
			switch {
			case piece == "":
				continue
			case strings.HasPrefix(rest, "=") && !fresh:
				last := &list[len(list)-1]
				last.params = append(last.params, piece)
			case word != "":
				list = append(list, challenge{scheme: word, first: rest})
				fresh = false
			}
			if strings.Contains(rest, "=") {
				params++
			}
			if params > maxChallengeParams || len(list) > maxChallengeParams {
				return nil, errChallenge
			}
		}
	}
	return list, nil
}

// param returns a parameter, "" when it is not there.
func (c challenge) param(name string) string {
	for _, piece := range append([]string{c.first}, c.params...) {
		key, value, ok := strings.Cut(piece, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), name) {
			continue
		}
		value = strings.TrimSpace(value)
		if !strings.HasPrefix(value, `"`) {
			return value
		}
		var plain strings.Builder
		for i := 1; i < len(value) && value[i] != '"'; i++ {
			if value[i] == '\\' && i+1 < len(value) {
				i++
			}
			plain.WriteByte(value[i])
		}
		return plain.String()
	}
	return ""
}

// splitQuoted yields what is between commas that are not quoted, trimmed.
func splitQuoted(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '\\' && quoted:
				i++
			case s[i] == '"':
				quoted = !quoted
			case s[i] == ',' && !quoted:
				if !yield(strings.Trim(s[start:i], " \t")) {
					return
				}
				start = i + 1
			}
		}
		yield(strings.Trim(s[start:], " \t"))
	}
}

// tokenEnd returns the length of the token that s begins with.
// https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2
func tokenEnd(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') &&
			!strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if end < 0 {
		return len(s)
	}
	return end
}
