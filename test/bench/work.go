package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// work is something to do in the tree.
type work struct {
	name   string
	script string
	fio    bool // the script is fio's, which tells the time itself
	each   bool // of one read, not of all
}

// The scripts discard what they read. tar writes into a pipe, since it reads nothing when it sees
// /dev/null. Random reads are as many as fit into three seconds, and no more than a quarter of the
// 1 GiB has.
var (
	find     = work{name: "find", script: "find . >/dev/null"}
	list     = work{name: "ls -lR", script: "ls -lR . >/dev/null"}
	tarAll   = work{name: "tar", script: "tar -cf - src | cat >/dev/null"}
	tarOne   = work{name: "tar, one folder", script: "tar -cf - src/d0000 | cat >/dev/null"}
	grep     = work{name: "grep -r", script: "grep -r nosuchwordanywhere src; test $? = 1"}
	parallel = work{name: "8 readers",
		script: "find src -type f -print0 | xargs -0 -P 8 -n 100 cat >/dev/null"}
	cat    = work{name: "cat, large file", script: "cat big.bin >/dev/null"}
	random = work{name: "one random read of 4 KiB", fio: true, each: true,
		script: "fio --name=r --filename=big.bin --readonly --rw=randread --bs=4k --number_ios=65536 --runtime=3 --ioengine=psync --invalidate=0 --output-format=json"}
	mmap = work{name: "mmap, large file", fio: true,
		script: "fio --name=m --filename=big.bin --readonly --rw=read --bs=128k --ioengine=mmap --invalidate=0 --output-format=json"}
)

// allWork is all of it that is done on the whole tree.
var allWork = []work{find, list, tarAll, grep, parallel, cat, random, mmap}

// aims are the works that a warm mount should do ahead of all peers, and at most 1.5 times as slow as ext4.
var aims = []work{find, list, tarAll, grep, cat}

// do does a piece of work in a tree and gives its time.
func (p *place) do(ctx context.Context, m *mount, w work) (time.Duration, error) {
	if w.fio {
		if err := installed("fio"); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	text, err := p.run(ctx, m.root, "sh", "-c", w.script)
	if err != nil {
		return 0, err
	}
	took := time.Since(start)
	if !w.fio {
		return took, nil
	}
	// fio may say things before the JSON.
	if at := strings.IndexByte(text, '{'); at > 0 {
		text = text[at:]
	}
	var said struct {
		Jobs []struct {
			Error int
			Read  struct {
				Runtime int `json:"runtime"` // ms
				Total   int `json:"total_ios"`
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil || len(said.Jobs) != 1 ||
		said.Jobs[0].Error != 0 || said.Jobs[0].Read.Total == 0 {
		return 0, fmt.Errorf("%s: fio measured nothing: %v: %s", w.name, err, text[:min(len(text), 300)])
	}
	took = time.Duration(said.Jobs[0].Read.Runtime) * time.Millisecond
	if w.each {
		took /= time.Duration(said.Jobs[0].Read.Total)
	}
	return took, nil
}

// sameTree fails unless a mount shows exactly the plain tree.
func (s *session) sameTree(ctx context.Context, m *mount) error {
	text, err := s.run(ctx, "", "diff", "-rq", s.plain, m.root)
	if err == nil && strings.TrimSpace(text) != "" {
		err = fmt.Errorf("%s differs: %s", m.root, text)
	}
	return err
}
