package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func TestInfo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir, Size: 1 << 30}, tiny)
	empty, err := s.Info(context.Background())
	must(t, err)
	if empty.Files != 0 || !empty.Oldest.IsZero() || !empty.Newest.IsZero() {
		t.Errorf("of an empty cache: %+v", empty)
	}
	for i := range 5 {
		mustGet(t, s, content(i, i*10), new(source).fill(content(i, i*10)))
		setAtime(t, dir, content(i, i*10), 10*i)
	}
	must(t, s.SetRecord("name", []byte("data")))
	info, err := s.Info(context.Background())
	must(t, err)
	if info.Dir != dir || info.Limit != 1<<30 || info.Files != 5 || info.Partial != 0 ||
		info.Free <= 0 || info.FileSystem == "" || info.Warning != "" {
		t.Errorf("%+v", info)
	}
	countedAs(t, info.Used, dir)
	if d := time.Since(info.Oldest); d < 39*time.Minute || d > 45*time.Minute ||
		time.Since(info.Newest) > 5*time.Minute {
		t.Errorf("oldest %v, newest %v", info.Oldest, info.Newest)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with its ctx over: %v", err)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir}, tiny)
	var want []string
	for i := range 8 {
		data := content(i, 30+i)
		mustGet(t, s, data, new(source).fill(data))
		switch i {
		case 0:
			rewrite(t, blobFile(dir, data), 20, []byte("!"))
		case 1:
			cut(t, blobFile(dir, data), 3)
		case 2:
			must(t, os.Remove(blobFile(dir, data)))
			must(t, os.Symlink("/etc/passwd", blobFile(dir, data)))
		case 3:
			must(t, os.Remove(blobFile(dir, data)+layout.SumsSuffix))
			continue
		default:
			continue
		}
		want = append(want, fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
	}
	r, err := s.Verify(context.Background())
	must(t, err)
	slices.Sort(want)
	slices.Sort(r.Names)
	if r.Checked != 8 || r.Damaged != 3 || !slices.Equal(r.Names, want) || r.Bytes != 33+34+35+36+37 {
		t.Errorf("%+v, want %v", r, want)
	}
	if !exists(blobFile(dir, content(3, 33)) + layout.SumsSuffix) {
		t.Error("the missing sidecar was not written again")
	}
	for i := range 8 {
		src := &source{}
		mustGet(t, s, content(i, 30+i), src.fill(content(i, 30+i)))
		if filled := src.fills.Load() == 1; filled != (i < 3) {
			t.Errorf("blob %d filled again: %v", i, filled)
		}
	}
	if r, err := s.Verify(context.Background()); err != nil || r.Damaged != 0 || r.Checked != 8 {
		t.Errorf("again: %+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with its ctx over: %v", err)
	}
}

// However many blobs are damaged, the list of names is bounded.
func TestVerifyManyDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	for i := range 100 + 10 {
		data := content(i, 10)
		mustGet(t, s, data, new(source).fill(data))
		cut(t, blobFile(dir, data), 1)
	}
	if r, err := s.Verify(context.Background()); err != nil || r.Damaged != 100+10 || len(r.Names) != 100 {
		t.Errorf("%d damaged, %d names, %v", r.Damaged, len(r.Names), err)
	}
}
