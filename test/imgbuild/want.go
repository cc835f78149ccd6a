package imgbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strconv"
)

// Want is one name that world/fs must show; the fixtures' expected files are lists of it.
type Want struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	Mode   string `json:"mode"` // "" for symlinks
	Size   int64  `json:"size"` // of files
	SHA256 string `json:"sha256"`
	Target string `json:"target"`
}

// LoadWant reads an expected file.
func LoadWant(file string) ([]Want, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var want []Want
	return want, json.Unmarshal(data, &want)
}

// Want is what world/fs must show for the Spec: the last entry of a path wins, missing parents are
// 0755 folders, set-id bits are gone. It holds the whole list, so it is not for trees of millions.
func (s *Spec) Want() ([]Want, error) {
	byPath := map[string]int{}
	var list []Want
	put := func(w Want) {
		if i, ok := byPath[w.Path]; ok {
			list[i] = w
			return
		}
		byPath[w.Path] = len(list)
		list = append(list, w)
	}
	for e := range s.all() {
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			if _, ok := byPath[dir]; !ok {
				put(Want{Path: dir, Kind: "dir", Mode: "0755"})
			}
		}
		w, err := e.want()
		if err != nil {
			return nil, err
		}
		put(w)
	}
	return list, nil
}

func (e *Entry) want() (Want, error) {
	w := Want{Path: e.Path, Kind: e.Kind, Target: e.Target}
	if w.Kind == "" {
		w.Kind = "file"
	}
	if w.Kind == "symlink" {
		return w, nil
	}
	mode := e.Mode
	if mode == "" {
		mode = "0644"
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return w, fmt.Errorf("%q: mode %q: %w", e.Path, mode, err)
	}
	w.Mode = fmt.Sprintf("%04o", bits&0o1777)
	if w.Kind == "file" && e.Content != nil {
		sum := sha256.New()
		if _, err := e.Content.WriteTo(sum); err != nil {
			return w, err
		}
		w.Size, w.SHA256 = e.Content.Size(), hex.EncodeToString(sum.Sum(nil))
	}
	return w, nil
}
