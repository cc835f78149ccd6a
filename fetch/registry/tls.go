package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxConfig is the longest file with certificates or hosts that is read, in bytes: Debian's bundle
// of all authorities has 220 KB.
const maxConfig = 4 << 20

// certs names the files of the authorities that a host may have, and of client certificates.
type certs struct {
	roots   []string // PEM, beside what the system trusts
	clients []keyPair
	open    bool // accept any certificate
}

// keyPair names a client certificate and its key.
type keyPair struct{ cert, key string }

func (c certs) empty() bool { return len(c.roots) == 0 && len(c.clients) == 0 && !c.open }

// config reads the files. Client certificates are read again at each handshake, since a mount may
// outlive them.
func (c certs) config() (*tls.Config, error) {
	conf := &tls.Config{InsecureSkipVerify: c.open}
	if len(c.roots) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, name := range c.roots {
			pem, err := readConfig(name)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, configError(name, "it holds no certificate in PEM form")
			}
		}
		conf.RootCAs = pool
	}
	if len(c.clients) > 0 {
		for _, p := range c.clients {
			if _, err := p.load(); err != nil {
				return nil, err
			}
		}
	}
	conf.GetClientCertificate = c.client
	return conf, nil
}

// client picks the certificate that the server asks for. None is as good an answer: the server then
// says what it thinks. Under TLS 1.3 it says so after the handshake, and the end of the connection
// may overtake that; so it is noted.
func (c certs) client(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	for _, p := range c.clients {
		cert, err := p.load()
		if err != nil {
			return nil, fmt.Errorf("%w to go on without a client certificate: %v", errRule, err)
		}
		if info.SupportsCertificate(cert) == nil {
			return cert, nil
		}
	}
	why := "the server asked for a client certificate; --client-cert gives one"
	if len(c.clients) > 0 {
		why = "the server asked for a client certificate, and that of --client-cert, " +
			"or of its folder, is by none of the authorities that it names"
	}
	askedOf(info.Context()).of.noteNoCert(why)
	return new(tls.Certificate), nil
}

func (p keyPair) load() (*tls.Certificate, error) {
	certPEM, err := readConfig(p.cert)
	if err != nil {
		return nil, err
	}
	keyPEM := certPEM
	if p.key != "" {
		if keyPEM, err = readConfig(p.key); err != nil {
			return nil, err
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		text := strings.TrimPrefix(clip(err.Error(), maxText), "tls: ")
		return nil, configError(p.cert, "with its key: "+text)
	}
	return &pair, nil
}

// readConfig reads a file that the user or the administrator named.
func readConfig(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, unreadable(name, err)
	case len(b) > maxConfig:
		return nil, configError(name, fmt.Sprintf("it is longer than %d bytes", maxConfig))
	}
	return b, nil
}

// configError says what is wrong with a file, never what stands in it.
func configError(name, text string) error {
	return fmt.Errorf("%s: %s: %w", clip(name, maxText), text, ErrConfig)
}

// unreadable is ErrConfig, and fs.ErrPermission or fs.ErrNotExist where it is.
func unreadable(name string, err error) error {
	for _, kind := range []error{fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%s: %w: %w", clip(name, maxText), kind, ErrConfig)
		}
	}
	return configError(name, plainText(err))
}

// certFolder reads a folder as Docker keeps it for a host: *.crt are authorities, *.cert with *.key
// client certificates. What the user may not read is only told to warn: such folders are often made
// for daemons of root.
// https://docs.docker.com/engine/security/certificates/
func certFolder(dir string, warn func(string)) (certs, error) {
	var c certs
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case errors.Is(err, fs.ErrPermission):
		warn("the certificates in " + clip(dir, maxText) + " are not used: permission denied")
		return c, nil
	case err != nil:
		return c, unreadable(dir, err)
	}
	for _, f := range files {
		name := filepath.Join(dir, f.Name())
		var used []string
		switch filepath.Ext(name) {
		case ".crt":
			used = []string{name}
		case ".cert":
			used = []string{name, strings.TrimSuffix(name, ".cert") + ".key"}
		default:
			continue
		}
		if may, err := allReadable(used, warn); err != nil {
			return c, err
		} else if !may {
			continue
		}
		if len(used) == 1 {
			c.roots = append(c.roots, name)
		} else {
			c.clients = append(c.clients, keyPair{used[0], used[1]})
		}
	}
	return c, nil
}

func allReadable(names []string, warn func(string)) (bool, error) {
	for _, name := range names {
		_, err := readConfig(name)
		switch {
		case errors.Is(err, fs.ErrPermission):
			warn(clip(name, maxText) + " is not used: permission denied")
			return false, nil
		case errors.Is(err, fs.ErrNotExist) && name != names[0]:
			return false, configError(names[0], "its key "+clip(filepath.Base(name), maxText)+
				" is missing; authorities are named *.crt")
		case err != nil:
			return false, err
		}
	}
	return true, nil
}
