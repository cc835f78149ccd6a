package fetch

import (
	"strings"
)

// challenge is one way in which a registry wants to be told who asks.
// https://www.rfc-editor.org/rfc/rfc9110.html#section-11.6.1
type challenge struct {
	scheme string
	text   string // all of it, scheme included
}

// parseChallenges takes the values of WWW-Authenticate apart. Each may hold several challenges, separated by the same
// commas as their parameters.
func parseChallenges(values []string) []challenge {
	var list []challenge
	for _, value := range values {
		fresh := true // a challenge never goes on in the next value
		for _, piece := range splitQuoted(value) {
			word := piece[:tokenEnd(piece)]
			rest := strings.TrimLeft(piece[len(word):], " \t")
			isParam := strings.HasPrefix(rest, "=") && !fresh
			switch {
			case piece == "":
			case isParam:
				last := &list[len(list)-1]
				last.text += ", " + piece
			case word != "":
				list = append(list, challenge{scheme: word, text: piece})
				fresh = false
			}
		}
	}
	return list
}

// param returns a parameter, "" when it is not there.
func (c challenge) param(name string) string {
	for _, piece := range splitQuoted(c.text[len(c.scheme):]) {
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

// splitQuoted splits at commas that are not quoted, and trims.
func splitQuoted(s string) []string {
	var pieces []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			pieces = append(pieces, strings.Trim(s[start:i], " \t"))
			start = i + 1
		}
	}
	return append(pieces, strings.Trim(s[start:], " \t"))
}

// tokenEnd returns the length of the token that s begins with.
// https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2
func tokenEnd(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if end < 0 {
		return len(s)
	}
	return end
}
