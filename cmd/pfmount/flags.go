package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/sign"
)

// cacheFlags say where the disk cache is and how large it may grow.
func cacheFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "cache-dir",
			Usage:       "keep verified blobs in `DIR`, shared by all mounts and commands",
			DefaultText: "$XDG_CACHE_HOME/pfmount",
		},
		&cli.StringFlag{Name: "cache-size", Usage: "let the cache grow to `SIZE`", Value: "10GiB"},
		&cli.StringFlag{
			Name: "cache-min-free", Value: "5%",
			Usage: "leave `PERCENT` of the cache's file system free",
		},
		&cli.StringFlag{
			Name: "cache-verify", Value: "first",
			Usage: "hash cached blobs again `WHEN`: first (at a process's first use) or always",
		},
	}
}

// imageFlags say how an image is reached and which signatures count.
func imageFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringSliceFlag{
			Name: "key-file",
			Usage: "accept only images signed with the key in `FILE` " +
				"(may repeat; any match passes)",
		},
		&cli.BoolFlag{
			Name:  "require-key",
			Usage: "refuse the public default key, which proves nothing about the author",
		},
		&cli.BoolFlag{Name: "insecure-skip-verify", Usage: "skip the signature (never a digest)"},
		&cli.StringFlag{
			Name: "max-blob-size", Value: "4GiB",
			Usage: "refuse blobs without a signed size above `SIZE`",
		},
		&cli.DurationFlag{
			Name: "stall-timeout", Value: 30 * time.Second,
			Usage: "give up a transfer that brings no byte for `TIME`",
		},
		&cli.IntFlag{
			Name: "max-connections", Value: 32, Usage: "open at most `N` connections to one host",
		},
		&cli.BoolFlag{
			Name:  "plain-http",
			Usage: "talk HTTP also to a registry elsewhere, credentials included",
		},
		&cli.StringFlag{
			Name:  "ca-file",
			Usage: "trust the certificate authorities in `FILE`, beside the system's (PEM)",
		},
		&cli.StringFlag{
			Name: "client-cert", Usage: "authenticate with the client certificate in `FILE` (PEM)",
		},
		&cli.StringFlag{
			Name: "client-key", DefaultText: "the certificate's file",
			Usage: "use the key in `FILE` with the client certificate (PEM)",
		},
		&cli.StringFlag{
			Name: "hosts-dir", Value: "/etc/containerd/certs.d",
			Usage: "read mirrors and certificates from `DIR`, as containerd does",
		},
		&cli.BoolFlag{Name: "offline", Usage: "use only what is in the cache"},
	}, loginFlags()...)
}

func verboseFlag() cli.Flag {
	return &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "log more"}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print one JSON object"}
}

// cacheOptions returns what the flags say about the disk cache.
func cacheOptions(c *cli.Context, log *slog.Logger) (o cache.Options, err error) {
	o.Log = log
	if o.Dir, err = cacheDir(c); err != nil {
		return o, err
	}
	if o.Size, err = parseSize(c, "cache-size"); err != nil {
		return o, err
	}
	if o.MinFree, err = parsePercent(c.String("cache-min-free")); err != nil {
		return o, err
	}
	if o.Verify, err = disk.ParseVerifyMode(c.String("cache-verify")); err != nil {
		return o, fault.Usagef("--cache-verify: %v", err)
	}
	return o, nil
}

// openCache opens the disk cache that the flags name.
func openCache(c *cli.Context, log *slog.Logger) (*cache.Store, error) {
	o, err := cacheOptions(c, log)
	if err != nil {
		return nil, err
	}
	return cache.New(o)
}

// cacheDir is --cache-dir, else the user's cache folder; without a HOME, root
// has /var/cache/pfmount.
func cacheDir(c *cli.Context) (string, error) {
	if dir := c.String("cache-dir"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		if os.Geteuid() == 0 {
			return "/var/cache/pfmount", nil
		}
		if os.Getenv("HOME") == "" {
			return "", fault.Usagef("no cache folder: HOME is not set, and user %d has no home"+
				" folder in /etc/passwd; give one with --cache-dir", os.Geteuid())
		}
		return "", fault.Usagef("no cache folder: %v; give one with --cache-dir", err)
	}
	return filepath.Join(dir, "pfmount"), nil
}

func parseSize(c *cli.Context, flag string) (int64, error) {
	n, err := humanize.ParseBytes(c.String(flag))
	if err != nil || n == 0 || n > math.MaxInt64 {
		return 0, fault.Usagef("--%s: %q is not a size such as 500MB or 10GiB",
			flag, c.String(flag))
	}
	return int64(n), nil
}

// parsePercent reads "5%" as 0.05. Nothing kept free is a negative fraction,
// since zero means the default to the cache.
func parsePercent(s string) (float64, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(p >= 0 && p < 100) {
		return 0, fault.Usagef("--cache-min-free: %q is not a percentage from 0 to 99", s)
	}
	if p == 0 {
		return -1, nil
	}
	return p / 100, nil
}

// fetchOptions turns the image flags into what fetch.Open takes.
func fetchOptions(c *cli.Context, imageRef ref.Ref, log *slog.Logger) (fetch.Options, error) {
	var o fetch.Options
	policy, err := keyPolicy(c, imageRef)
	if err != nil {
		return o, err
	}
	maxBlob, err := parseSize(c, "max-blob-size")
	if err != nil {
		return o, err
	}
	if c.Int("max-connections") < 1 || c.Int("max-connections") > 1024 {
		return o, fault.Usagef("--max-connections: %d is not between 1 and 1024",
			c.Int("max-connections"))
	}
	if c.Duration("stall-timeout") <= 0 {
		return o, fault.Usagef("--stall-timeout: %v is not a positive time such as 30s",
			c.Duration("stall-timeout"))
	}
	if c.String("client-key") != "" && c.String("client-cert") == "" {
		return o, fault.Usagef("--client-key: there is no --client-cert that it belongs to")
	}
	user, password, err := readLogin(c, imageRef)
	if err != nil {
		return o, err
	}
	return fetch.Options{
		Policy: policy, Log: log, MaxBlobSize: maxBlob,
		Registry: registry.Options{
			Log: log, Version: version,
			Offline: c.Bool("offline"), PlainHTTP: c.Bool("plain-http"),
			StallTimeout: c.Duration("stall-timeout"), MaxConns: c.Int("max-connections"),
			Login: registry.LoginOptions{Getenv: os.Getenv, Username: user, Password: password},
			TLS: registry.TLSOptions{
				CAFile: absolute(c.String("ca-file")), HostsDir: absolute(c.String("hosts-dir")),
				ClientCert: absolute(c.String("client-cert")),
				ClientKey:  absolute(c.String("client-key")),
			},
		},
	}, nil
}

// absolute is for files that the background process reads again, which works
// in another folder.
func absolute(name string) string {
	if name == "" {
		return ""
	}
	if abs, err := filepath.Abs(name); err == nil {
		return abs
	}
	return name
}

// keyPolicy collects the keys to trust: --key-file beats the environment, and
// the variable depends on where the image lives.
func keyPolicy(c *cli.Context, imageRef ref.Ref) (sign.Policy, error) {
	p := sign.Policy{Require: c.Bool("require-key"), Insecure: c.Bool("insecure-skip-verify")}
	for _, name := range c.StringSlice("key-file") {
		key, err := readKey(name)
		if err != nil {
			return p, err
		}
		p.Keys = append(p.Keys, key)
	}
	if name := imageRef.SignKeyVar(); name != "" && len(p.Keys) == 0 {
		key, ok, err := sign.KeyFromEnv(name, os.LookupEnv)
		if err != nil {
			return p, err
		}
		if ok {
			p.Keys = append(p.Keys, key)
		}
	}
	return p, nil
}

// maxKeyFile is far above any real key, and keeps a wrong path cheap.
const maxKeyFile = 64 << 10

func readKey(name string) (sign.Key, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, fault.Mark(fmt.Errorf("key file: %w", err), fault.ErrUsage)
	}
	if !fi.Mode().IsRegular() && fi.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 ||
		fi.Size() > maxKeyFile {
		return nil, fault.Usagef("key file %q is not a file of at most %d bytes", name, maxKeyFile)
	}
	content, err := readLimited(name, maxKeyFile)
	if err != nil {
		return nil, fault.Mark(fmt.Errorf("key file: %w", err), fault.ErrUsage)
	}
	key, err := sign.KeyFromFile(content)
	if err != nil {
		return nil, fmt.Errorf("key file %q: %w", name, err)
	}
	return key, nil
}

// readLimited reads a whole file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return b, err
}
