package pfimg

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/strictjson"
	"github.com/pfmount/pfmount/sign"
)

// Parse reads a verified manifest. Both spellings of schema_version, media_type and created_at are
// read (schemaVersion and so on are what the upstream documents show), but not both at once.
// Unknown fields are ignored. Another schema, or JSON that is no pf manifest, is ErrUnsupported; a
// missing, wrong or duplicate field is ErrIntegrity.
func Parse(v sign.Verified) (*Manifest, error) {
	raw := v.Bytes()
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("manifest: %d bytes, the limit is %d: %w", len(raw), MaxManifest,
			ErrIntegrity)
	}
	// Another schema may have other fields, so the schema is looked for before anything else is
	// believed.
	_, err := scan(context.Background(), "manifest", bytes.NewReader(raw), checkSchema)
	if err != nil {
		return nil, err
	}
	p := parser{
		m: &Manifest{
			Signed: Signed{ID: v.ID(), Raw: raw, Signature: v.Signature(), Signer: v.Signer()},
		},
	}
	_, err = scan(context.Background(), "manifest", bytes.NewReader(raw), p.manifest)
	if err != nil {
		return nil, err
	}
	return p.m, nil
}

// checkSchema finds schema and media type, and checks the JSON of the whole.
func checkSchema(s *strictjson.Reader) error {
	var version int64
	var media string
	var haveVersion, haveMedia bool
	err := s.Object(func(name []byte) (err error) {
		switch string(name) {
		case "schema_version", "schemaVersion":
			if haveVersion {
				return s.Bad("schema_version is there twice, in both spellings")
			}
			haveVersion = true
			version, err = s.Number(maxSize)
		case "media_type", "mediaType":
			if haveMedia {
				return s.Bad("media_type is there twice, in both spellings")
			}
			haveMedia = true
			var text []byte
			text, err = s.Text()
			media = string(text)
		default:
			err = s.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case haveMedia && media != MediaType:
		return fmt.Errorf("manifest: media type %s is no ProcessFork image (%s): %w", quote(media),
			MediaType, ErrUnsupported)
	case !haveMedia && !haveVersion:
		return fmt.Errorf(
			"manifest: neither schema_version nor media_type: no ProcessFork image: %w",
			ErrUnsupported)
	case !haveVersion:
		return s.Bad("schema_version is missing")
	case version != Schema:
		return fmt.Errorf("manifest: schema_version %d (this version reads %d): %w", version,
			Schema, ErrUnsupported)
	case !haveMedia:
		return s.Bad("media_type is missing")
	}
	return nil
}

// parser fills a manifest.
type parser struct {
	m *Manifest
	s *strictjson.Reader
}

// field is a name and how its value is read.
type field struct {
	name string
	read func() error
}

// manifest reads the whole object.
func (p *parser) manifest(s *strictjson.Reader) error {
	p.s = s
	m := p.m
	return p.group("", []field{
		{
			"agent",
			p.object("agent", p.text("kind", &m.Agent.Kind), p.text("version", &m.Agent.Version),
				p.text("fingerprint", &m.Agent.Fingerprint)),
		},
		{
			"model",
			p.object("model", p.digest("base", &m.Model.Base), p.digest("diff", &m.Model.Diff)),
		},
		{
			"cache",
			p.object("cache", p.text("layout", &m.Cache.Layout),
				p.digest("manifest", &m.Cache.Manifest)),
		},
		{
			"world",
			p.object("world", p.digest("fs", &m.World.FS), p.digest("env", &m.World.Env),
				p.digest("procs", &m.World.Procs)),
		},
		{"effects", p.object("effects", p.digest("ledger", &m.Effects.Ledger))},
		{"trace", p.object("trace", p.digest("messages", &m.Trace.Messages))},
		{"created_at", p.created},
	})
}

// group reads an object that must have all the fields, and perhaps others.
func (p *parser) group(prefix string, fields []field) error {
	var seen uint
	err := p.s.Object(func(raw []byte) error {
		name := string(raw)
		switch {
		case prefix == "" && name == "parents":
			return p.parents()
		case prefix == "" && name == "createdAt":
			name = "created_at"
		}
		for i, f := range fields {
			if f.name != name {
				continue
			}
			if seen&(1<<i) != 0 { // the decoder refuses equal names, so these are two spellings
				return p.s.Bad("%s is there twice, in both spellings", name)
			}
			seen |= 1 << i
			return f.read()
		}
		return p.s.Skip()
	})
	if err != nil {
		return err
	}
	for i, f := range fields {
		if seen&(1<<i) == 0 {
			return p.s.Bad("%s%s is missing", prefix, f.name)
		}
	}
	return nil
}

func (p *parser) object(name string, fields ...field) func() error {
	return func() error { return p.group(name+".", fields) }
}

func (p *parser) text(name string, to *string) field {
	return field{name, func() error {
		text, err := p.s.Text()
		*to = string(text)
		return err
	}}
}

func (p *parser) digest(name string, to *Digest) field {
	return field{name, func() (err error) {
		*to, err = readDigest(p.s)
		return err
	}}
}

// created reads a time of RFC 3339, which allows "t" and "z" in lower case; package time does not.
func (p *parser) created() error {
	text, err := p.s.Text()
	if err != nil {
		return err
	}
	if p.m.Created, err = time.Parse(time.RFC3339Nano, strings.ToUpper(string(text))); err != nil {
		return p.s.Bad("created_at: %s is no time of RFC 3339", quote(text))
	}
	return nil
}

func (p *parser) parents() error {
	if null, err := p.s.Null(); null || err != nil {
		return err
	}
	return p.s.Array(func() error {
		d, err := readDigest(p.s)
		p.m.Parents = append(p.m.Parents, d)
		return err
	})
}
