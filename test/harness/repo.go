package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// repo is the product's folder: the nearest one above that has cmd/pfmount.
func repo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if st, err := os.Stat(filepath.Join(d, "cmd", "pfmount")); err == nil && st.IsDir() {
			return d, nil
		}
		if d == "/" {
			return "", fmt.Errorf("no cmd/pfmount above %s", dir)
		}
	}
}

// FixtureDir is a folder of testdata/fixtures: "layout", "file-registry", "store", "expected".
func FixtureDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "test", "testdata", "fixtures", name)
}

// Fixture reads a fixture image; it may be spoiled, the files stay.
func Fixture(t testing.TB, tag string) *imgbuild.Image {
	t.Helper()
	img, err := imgbuild.FromLayout(FixtureDir(t, "layout"), tag)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// FixtureTags lists all fixtures.
func FixtureTags(t testing.TB) []string {
	t.Helper()
	tags, err := imgbuild.Tags(FixtureDir(t, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	return tags
}

// Want is what the fixture's world/fs must show.
func Want(t testing.TB, tag string) []imgbuild.Want {
	t.Helper()
	want, err := imgbuild.LoadWant(filepath.Join(FixtureDir(t, "expected"), tag+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// Build builds an image whose larger blobs live as long as the test.
func Build(t testing.TB, s imgbuild.Spec) *imgbuild.Image {
	t.Helper()
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	img, err := imgbuild.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// SHA256 is the hex SHA-256 of data.
func SHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
