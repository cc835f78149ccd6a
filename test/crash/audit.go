package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Report is what Audit found in a cache folder.
type Report struct {
	Blobs   int      // files under final names
	Torn    []string // those of them whose content is not what the name says
	Partial int      // files in tmp
	Used    int64    // bytes on disk, those in tmp excepted, as du counts
	Usage   int64    // what the folder's own number says; -1: nothing, so it will be counted before anything is added
}

// Audit reads a cache folder that no process has open, byte for byte. It is an error when anything
// is in it that no cache puts there, with a mode that no cache gives.
func Audit(dir string) (Report, error) {
	var r Report
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if parent := filepath.Dir(name); parent == "tmp" {
			r.Partial++
			return nil
		}
		r.Used += info.Sys().(*syscall.Stat_t).Blocks * 512
		if err := place(name, info); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !strings.HasPrefix(name, "blobs/") || d.IsDir() || filepath.Ext(name) == ".sums" {
			return nil
		}
		r.Blobs++
		sum, err := hash(path)
		if sum != d.Name() {
			r.Torn = append(r.Torn, d.Name())
		}
		return err
	})
	if err != nil {
		return r, err
	}
	r.Usage, err = usage(filepath.Join(dir, "usage"))
	return r, err
}

// usage reads the folder's number. It counts when the file's mtime says the same.
func usage(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !info.ModTime().Equal(time.Unix(n>>20, n&(1<<20-1)*900)) {
		return -1, nil
	}
	return n, nil
}

// place says what is wrong with a name and its mode.
func place(name string, info fs.FileInfo) error {
	want := fs.FileMode(0o400)
	digest, in := "", false
	switch name {
	case ".", "blobs", "tmp", "records":
		want, in = fs.ModeDir|0o700, true
	case "usage", "evict.lock", "CACHEDIR.TAG":
		want, in = 0o600, true
	}
	if rest, ok := strings.CutPrefix(name, "records/"); ok {
		digest = rest
	}
	if rest, ok := strings.CutPrefix(name, "blobs/"); ok {
		shard, file, ok := strings.Cut(rest, "/")
		if digest = strings.TrimSuffix(file, ".sums"); ok && !strings.HasPrefix(digest, shard) {
			return errors.New("in the wrong folder")
		}
		if !ok && len(shard) == 2 {
			want, in = fs.ModeDir|0o700, true
		}
	}
	if b, err := hex.DecodeString(digest); !in && (err != nil || len(b) != sha256.Size) {
		return errors.New("not a name of the cache")
	}
	if info.Mode() != want {
		return fmt.Errorf("mode %v, want %v", info.Mode(), want)
	}
	return nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
