package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// refusing answers requests of a method, whose path holds part, with a status and one error of a
// registry.
func refusing(method, part string, status int, code,
	message string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code,
			"message": message}}})
		return true
	}
}

// TestPushRefused has registries say no, each in its way: the error has their words and what to do.
func TestPushRefused(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:basic")
	layers := fmt.Sprint(1+c.Index.Stats().Blobs, " layers")
	large := []string{layers, "KiB", "pfmount pull", "oci-layout:DIR"}
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		is     []error
		not    error
		says   []string
		puts   int // of the manifest
	}{
		{"413", refusing("PUT", "manifests", 413, "", ""),
			[]error{registry.ErrTooLarge, registry.ErrRegistry}, nil, large, 1},
		{"400, too large", refusing("PUT", "manifests", 400, "MANIFEST_INVALID",
			"manifest too large"), []error{registry.ErrTooLarge}, nil,
			append(large, "manifest too large"), 1},
		{"400, body too large", refusing("PUT", "manifests", 400, "MANIFEST_INVALID",
			"http: request body too large"), []error{registry.ErrTooLarge}, nil,
			append(large, "request body too large"), 1},
		{
			"405, layers", refusing("PUT", "manifests", 405, "UNSUPPORTED",
				"Invalid parameter: the number of layers exceeds the limit of 500"),
			[]error{registry.ErrTooLarge}, nil, append(large, "limit of 500"), 1,
		},
		{"405, something else", refusing("PUT", "manifests", 405, "UNSUPPORTED", "read-only"),
			[]error{registry.ErrRegistry}, registry.ErrTooLarge, []string{"read-only"}, 1},
		{
			"400, Quay", refusing("PUT", "manifests", 400, "MANIFEST_INVALID",
				"manifest schema version not supported"),
			[]error{registry.ErrRegistry}, registry.ErrTooLarge,
			[]string{"schema version", artifact.MediaTypeConfig, "FEATURE_GENERAL_OCI_SUPPORT",
				"ALLOWED_OCI_ARTIFACT_TYPES", artifact.MediaTypeLayer}, 1,
		},
		{"415", refusing("PUT", "manifests", 415, "", ""), []error{registry.ErrRegistry},
			registry.ErrTooLarge, []string{artifact.MediaTypeConfig, "FEATURE_GENERAL_OCI_SUPPORT"}, 1},
		{
			"no such repository", refusing("POST", "uploads", 404, "NAME_UNKNOWN",
				"The repository with name 'a' does not exist"),
			[]error{artifact.ErrNotFound}, registry.ErrTooLarge,
			[]string{"does not exist", "create the repository a first", "aws ecr create-repository"}, 0,
		},
		{"no such repository, at the manifest",
			refusing("PUT", "manifests", 404, "NAME_UNKNOWN", "gone"),
			[]error{artifact.ErrNotFound}, nil, []string{"create the repository"}, 1},
		{"range", refusing("PUT", "manifests", 416, "RANGE", "no"), []error{registry.ErrRegistry},
			nil, []string{"416"}, 1},
		{"range of a blob", refusing("PUT", "uploads", 416, "RANGE", "no"),
			[]error{registry.ErrRegistry}, nil, []string{"416"}, 0},
		{"busy", refusing("PUT", "manifests", 503, "BUSY", "later"), []error{registry.ErrRegistry},
			registry.ErrTooLarge, []string{"later", "after 5 tries"}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.NewDestination(t)
			s.Answer = tt.answer
			_, err := push(t, s, c, "")
			for _, want := range tt.is {
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if tt.not != nil && errors.Is(err, tt.not) {
				t.Errorf("got %v, which is %v", err, tt.not)
			}
			for _, want := range tt.says {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if n := s.Count("PUT manifest"); n != tt.puts || len(s.Manifests) > 0 {
				t.Errorf("%d PUTs of the manifest, want %d", n, tt.puts)
			}
		})
	}
}

// TestPushMaxManifest refuses before the first request what is over the limit, and takes it under a
// higher one.
func TestPushMaxManifest(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:basic")
	raw, err := c.ociBytes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(raw))
	for _, tt := range []struct {
		limit int64
		is    error
	}{{size / 2, registry.ErrTooLarge}, {size - 1, registry.ErrTooLarge}, {size, nil}, {0, nil}} {
		s := registrytest.NewDestination(t)
		_, err := Push(context.Background(), c, s.Ref(t),
			PushOptions{Registry: testOptions().Registry, MaxManifest: tt.limit})
		if !errors.Is(err, tt.is) || err == nil != (tt.is == nil) || err != nil && len(s.Seen) > 0 {
			t.Errorf("limit %d: got %v after %v, want %v", tt.limit, err, s.Seen, tt.is)
		}
		if err != nil && (!strings.Contains(err.Error(), "--max-manifest-size") ||
			!strings.Contains(err.Error(), fmt.Sprint(c.Index.Stats().Blobs, " blobs"))) {
			t.Errorf("limit %d: %v", tt.limit, err)
		}
	}
}
