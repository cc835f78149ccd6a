package fetch

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Limits on what strangers say in our messages, in bytes.
const (
	maxErrorBody = 8 << 10
	maxWords     = 300
)

// clip escapes s for a terminal and a log, and cuts it to about max bytes.
func clip(s string, max int) string {
	cut := len(s) > max
	if cut {
		s = s[:max]
	}
	q := strconv.Quote(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	if len(q) > max {
		q, cut = q[:max], true
	}
	if cut {
		q += "…"
	}
	return q
}

// serverWords returns what an error answer says for itself: errors[].code and message of a registry, or a short plain
// text. Pages for browsers say nothing.
func serverWords(resp *http.Response) string {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		return ""
	}
	var doc struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.Unmarshal(body, &doc) == nil {
		return errorWords(doc.Errors)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/plain" {
		return clip(strings.TrimSpace(string(body)), maxWords)
	}
	return ""
}

// errorWords joins code and message of each error; details may hold anything and are left out.
func errorWords(errs errcode.Errors) string {
	var words []string
	for _, e := range errs {
		w := e.Code
		if e.Message != "" && w != "" {
			w += ": "
		}
		if w += e.Message; w != "" {
			words = append(words, w)
		}
	}
	return clip(strings.Join(words, "; "), maxWords)
}
