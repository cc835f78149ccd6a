package registry

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// Limits on what strangers say in our messages, in bytes.
const (
	maxErrorBody = 8 << 10
	maxText      = 300
	minSecret    = 4 // shorter ones may be part of any word
)

// clip escapes s for a terminal and a log, and cuts it to max bytes.
func clip(s string, max int) string { return safetext.Clip(s, max) }

// serverText returns what an error answer says for itself: errors[].code and message of a registry,
// or a short plain text. Pages for browsers say nothing. A server that repeats one of the secrets
// that it was told is cut short.
func serverText(resp *http.Response, secrets ...string) string {
	words := rawText(resp)
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			words = strings.ReplaceAll(words, secret, "***")
		}
	}
	return clip(words, maxText)
}

func rawText(resp *http.Response) string {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		return ""
	}
	var doc struct {
		Errors errcode.Errors `json:"errors"`
		// Of token servers: https://www.rfc-editor.org/rfc/rfc6749#section-5.2, and Docker Hub's
		// own.
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Details     string `json:"details"`
	}
	var otherType *json.UnmarshalTypeError // of one field: the others are there
	if err := json.Unmarshal(body, &doc); err == nil || errors.As(err, &otherType) {
		return errorWords(append(doc.Errors,
			errcode.Error{Code: doc.Error, Message: doc.Description},
			errcode.Error{Message: doc.Details}))
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/plain" {
		return strings.TrimSpace(string(body))
	}
	return ""
}

// sentSecrets lists what was told to a server that it might repeat: credentials, the headers of
// hosts.toml, and what is signed in the URL that a redirect led to.
func sentSecrets(req *http.Request) []string {
	_, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	_, password, _ := req.BasicAuth()
	secrets := []string{token, password}
	for _, values := range askedOf(req.Context()).of.header {
		for _, value := range values {
			// Such as "Token abc".
			secrets = append(append(secrets, value), strings.Fields(value)...)
		}
	}
	if req.Response != nil {
		secrets = append(secrets, req.URL.RawQuery)
		for _, values := range req.URL.Query() {
			secrets = append(secrets, values...)
		}
	}
	return secrets
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
	return strings.Join(words, "; ")
}
