package registrytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"sync"

	"github.com/pfmount/pfmount/fetch/artifact"
)

// NoEnv is an environment without variables.
func NoEnv(string) string { return "" }

// Buffer is a Sink in memory.
type Buffer struct {
	bytes.Buffer
	Resets int
	Fail   error
}

// Write fails with b.fail when that is set.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.Fail != nil {
		return 0, b.Fail
	}
	return b.Buffer.Write(p)
}

// Reset forgets what was written.
func (b *Buffer) Reset() error {
	b.Resets++
	b.Buffer.Reset()
	return nil
}

// Cache is a cache of manifests in memory.
type Cache struct {
	mu       sync.Mutex
	Contents map[[32]byte][]byte
	names    map[string][]byte
}

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{Contents: map[[32]byte][]byte{}, names: map[string][]byte{}}
}

// Bytes returns the content of a digest, from memory or by fill.
func (m *Cache) Bytes(ctx context.Context, key [32]byte, size int64,
	fill func(context.Context, artifact.Sink) error,
) ([]byte, error) {
	m.mu.Lock()
	b, ok := m.Contents[key]
	m.mu.Unlock()
	if ok {
		return b, nil
	}
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var s Buffer
	if err := fill(ctx, &s); err != nil {
		return nil, err
	}
	if sha256.Sum256(s.Bytes()) != key || size >= 0 && int64(s.Len()) != size {
		return nil, fmt.Errorf("fill wrote other bytes than %x", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Contents[key] = s.Bytes()
	return s.Bytes(), nil
}

// Get returns what was last Put under a name.
func (m *Cache) Get(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.names[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

// Put keeps data under a name.
func (m *Cache) Put(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[name] = bytes.Clone(data)
	return nil
}

// Env is an environment of names and values, in turn.
func Env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}
