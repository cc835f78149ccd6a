package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/strictjson"
)

// layoutDest keeps an image in an OCI image layout, beside images with other tags.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
type layoutDest struct{ ref ref.Ref }

var _ destination = (*layoutDest)(nil)

func (l *layoutDest) file(parts ...string) string {
	return filepath.Join(append([]string{l.ref.Dir()}, parts...)...)
}

func (l *layoutDest) prepare(ctx context.Context, id Identity) error {
	at := &layout{ref: l.ref, traffic: new(artifact.Counters)}
	if err := at.version(ctx); err != nil && !errors.Is(err, artifact.ErrNotFound) {
		return err
	}
	ix, err := l.readIndex(ctx)
	if err != nil {
		return err
	}
	for _, e := range ix.entries {
		if l.ref.Tag() != "" && e.RefName != l.ref.Tag() || e.Digest == id.OCI {
			continue
		}
		d, err := e.Descriptor()
		if err == nil {
			var m *artifact.Manifest
			if m, err = at.manifest(ctx, d); err == nil &&
				m.Config.Wire == artifact.WireDigest(id.CID) {
				continue
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if l.ref.Tag() != "" {
			return fmt.Errorf("%q holds another image under the tag %q: %w", l.ref.Dir(),
				l.ref.Tag(), ErrTaken)
		}
		return fmt.Errorf("%q holds another image; name a tag for this one, oci-layout:%s:TAG: %w",
			l.ref.Dir(), l.ref.Dir(), ErrTaken)
	}
	return nil
}

func (l *layoutDest) path(_ pfimg.Digest, wire artifact.WireDigest) (string, bool) {
	return l.file("blobs", "sha256", wire.Hex()), wire != artifact.WireDigest{}
}

// commit writes config, signature and OCI manifest, and last the index that names it.
func (l *layoutDest) commit(ctx context.Context, temp *tempDir, p Parts) error {
	for _, b := range [][]byte{p.Manifest, p.Signature, p.OCI} {
		if err := temp.write(l.file("blobs", "sha256", artifact.DigestOf(b).Hex()), b); err != nil {
			return err
		}
	}
	if !isFile(l.file("oci-layout")) {
		version := []byte(`{"imageLayoutVersion":"1.0.0"}`)
		if err := temp.write(l.file("oci-layout"), version); err != nil {
			return err
		}
	}
	return l.list(ctx, temp, artifact.DigestOf(p.OCI).String(), len(p.OCI))
}

// list names the manifest in the index. Other processes may do the same at once, so the folder is
// locked.
func (l *layoutDest) list(ctx context.Context, temp *tempDir, digest string, size int) error {
	dir, err := os.Open(l.ref.Dir())
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %q: %w", l.ref.Dir(), err)
	}
	ix, err := l.readIndex(ctx)
	if err != nil {
		return err
	}
	changed, err := ix.set(l.ref.Tag(), digest, size)
	if err != nil {
		return err
	}
	if !changed {
		return temp.sync() // blobs may have come anew
	}
	raw, err := ix.bytes()
	if err != nil {
		return err
	}
	return temp.publish(l.file("index.json"), raw)
}

// indexFile is an index.json: what pfmount reads of it, and all of it as it stands.
type indexFile struct {
	fields  map[string]json.RawMessage
	raw     []json.RawMessage
	entries []artifact.RawDescriptor
}

// readIndex reads index.json; none is an empty one.
func (l *layoutDest) readIndex(ctx context.Context) (*indexFile, error) {
	path := l.file("index.json")
	ix := &indexFile{fields: map[string]json.RawMessage{}}
	content, err := readSmall(ctx, path, maxIndex, new(artifact.Counters))
	if errors.Is(err, artifact.ErrMissing) {
		return ix, nil
	}
	if err != nil {
		return nil, err
	}
	err = artifact.ReadObject(
		bytes.NewReader(content),
		func(j *strictjson.Reader, name []byte) error {
			if string(name) != "manifests" {
				return j.Skip()
			}
			return artifact.ReadList(j, func(j *strictjson.Reader) error {
				var d artifact.RawDescriptor
				err := d.Read(j)
				ix.entries = append(ix.entries, d)
				return err
			})
		},
	)
	if err == nil { // it is good JSON, so both readers agree
		err = json.Unmarshal(content, &ix.fields)
	}
	if list := ix.fields["manifests"]; err == nil && list != nil {
		err = json.Unmarshal(list, &ix.raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	if len(ix.raw) != len(ix.entries) {
		return nil, fmt.Errorf("%q: its list of manifests is no list: %w", path, pfimg.ErrIntegrity)
	}
	return ix, nil
}

// set makes a tag, or without one the only image, mean a manifest. changed is false when it does so
// already.
func (x *indexFile) set(tag, digest string, size int) (changed bool, err error) {
	found := false
	for i, e := range x.entries {
		if tag != "" && e.RefName != tag {
			continue
		}
		found = true
		if e.Digest == digest {
			continue
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(x.raw[i], &fields); err != nil {
			return false, err
		}
		fields["digest"], fields["size"] = json.RawMessage(`"`+digest+`"`), json.RawMessage(
			fmt.Sprint(size))
		if x.raw[i], err = json.Marshal(fields); err != nil {
			return false, err
		}
		changed = true
	}
	if found {
		return changed, nil
	}
	type named struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	e := named{MediaType: artifact.MediaTypeManifest, Digest: digest, Size: size}
	if tag != "" {
		e.Annotations = map[string]string{artifact.RefNameAnnotation: tag}
	}
	raw, err := json.Marshal(e)
	x.raw = append(x.raw, raw)
	return true, err
}

// bytes returns the file anew.
func (x *indexFile) bytes() ([]byte, error) {
	list, err := json.Marshal(x.raw)
	if err != nil {
		return nil, err
	}
	x.fields["manifests"] = list
	if x.fields["schemaVersion"] == nil {
		x.fields["schemaVersion"] = json.RawMessage("2")
		x.fields["mediaType"] = json.RawMessage(`"` + artifact.MediaTypeIndex + `"`)
	}
	return json.Marshal(x.fields)
}
