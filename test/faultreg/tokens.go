package faultreg

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Tokens is a token server: the Backend of a Server, whose Log and rules it then has. Its tokens
// are ES256 JWTs with x5c, which a registry behind Guard checks as distribution does.
// https://distribution.github.io/distribution/spec/auth/token/
type Tokens struct {
	Users     map[string]string // passwords by name
	Refresh   map[string]string // names by identity token
	Anonymous bool              // requests without credentials may pull
	Lasts     time.Duration     // the life of a token; 0: five minutes
	Deny      string            // repository that no token gives a right to

	key  *ecdsa.PrivateKey
	cert []byte // DER

	mu      sync.Mutex // guards the fields below
	issued  []Issued
	revoked int // tokens up to this one are refused
}

// Issued is a token that was given out.
type Issued struct {
	User   string // "": nobody
	Scopes []string
	Method string
	Token  string
}

const (
	tokenIssuer  = "tokens.test"
	tokenService = "registry.test"
)

// NewTokens makes a token server with a key of its own.
func NewTokens() (*Tokens, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	return &Tokens{key: key, cert: cert}, err
}

// Guard lets only requests with a token of this server through to a registry; realm is where tokens
// are asked for, dir a folder for the server's certificate. It fits Options.Wrap.
func (t *Tokens) Guard(realm, dir string) (func(http.Handler) http.Handler, error) {
	bundle := filepath.Join(dir, "tokens.pem")
	if err := os.WriteFile(bundle,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.cert}), 0o600); err != nil {
		return nil, err
	}
	control, err := auth.GetAccessController("token", map[string]any{
		"realm": realm, "issuer": tokenIssuer, "service": tokenService, "rootcertbundle": bundle,
	})
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler { return guard{control, t.revokedToken, next} }, nil
}

// Issued lists the tokens that were given out.
func (t *Tokens) Issued() []Issued {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.issued)
}

// Revoke ends all tokens that were given out.
func (t *Tokens) Revoke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revoked = len(t.issued)
}

func (t *Tokens) revokedToken(raw string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.issued[:t.revoked], func(i Issued) bool { return i.Token == raw })
}

// ServeHTTP answers a request for a token: GET with a password, or POST with an identity token or a password.
func (t *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, ok := t.who(r)
	if !ok {
		Answer(http.StatusUnauthorized,
			`{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`,
			"Content-Type", "application/json")(w, r, nil)
		return
	}
	scopes := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		scopes = strings.Fields(r.PostForm.Get("scope"))
	}
	raw, err := t.issue(user, scopes, r.Method)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": raw, "access_token": raw,
		"expires_in": int(t.lasts().Seconds())})
}

func (t *Tokens) lasts() time.Duration {
	if t.Lasts == 0 {
		return 5 * time.Minute
	}
	return t.Lasts
}

// who returns the user that asks for a token, and whether it may have one.
func (t *Tokens) who(r *http.Request) (user string, ok bool) {
	password := ""
	if r.Method == http.MethodPost {
		if r.ParseForm() != nil {
			return "", false
		}
		if user, ok = t.Refresh[r.PostForm.Get("refresh_token")]; ok {
			return user, r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("client_id") != ""
		}
		user, password = r.PostForm.Get("username"), r.PostForm.Get("password")
	} else if user, password, ok = r.BasicAuth(); !ok {
		return "", t.Anonymous
	}
	want, known := t.Users[user]
	return user, known && want == password
}

// issue signs a token for what it may be used for.
func (t *Tokens) issue(user string, scopes []string, method string) (string, error) {
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5c",
		[]string{base64.StdEncoding.EncodeToString(t.cert)})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: t.key}, options)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	raw, err := jwt.Signed(signer).Claims(token.ClaimSet{
		Issuer: tokenIssuer, Subject: user, Audience: token.AudienceList{tokenService},
		JWTID:    strconv.Itoa(len(t.issued)),
		IssuedAt: now.Unix(), NotBefore: now.Add(-time.Minute).Unix(),
		Expiration: now.Add(t.lasts()).Unix(), Access: t.access(user, scopes),
	}).Serialize()
	if err == nil {
		t.issued = append(t.issued, Issued{user, scopes, method, raw})
	}
	return raw, err
}

// access reads scopes such as repository:team/app:pull,push. Nobody may only pull.
func (t *Tokens) access(user string, scopes []string) []*token.ResourceActions {
	var list []*token.ResourceActions
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		name, actions, _ := strings.Cut(rest, ":")
		if name == t.Deny {
			continue
		}
		a := &token.ResourceActions{Type: kind, Name: name, Actions: strings.Split(actions, ",")}
		if user == "" {
			a.Actions = []string{"pull"}
		}
		list = append(list, a)
	}
	return list
}
