package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// aheadFrom is the stored size from which download, decoding and writing run side by side, in bytes. Below it the
// goroutines cost more than they bring.
const aheadFrom = 256 << 10

// maxDrain is how many stored bytes are read after a decoding error to learn whether they are the right ones.
const maxDrain = 4 << 20

// stream decodes a layer to w and returns how many bytes that made and what they hash to. Without an error the stored
// bytes have proved right, too. The caller judges the content.
func (im *Image) stream(ctx context.Context, p pass, w io.Writer) (int64, pfimg.Digest, error) {
	ctx, cancel := context.WithCancel(ctx) // ends a read that is under way when decoding fails
	defer cancel()
	from, err := im.read(ctx, p.layer, p.wrong)
	if err != nil {
		return 0, pfimg.Digest{}, err
	}
	defer func() { _ = from.Close() }()
	var wireHash hash.Hash
	if p.layer.hashed() {
		wireHash = sha256.New()
	}
	ahead := from.size >= aheadFrom
	in := newIntake(from, wireHash, &im.decoders.chunks, ahead)
	out := newOutlet(w, &im.decoders.chunks, p.limit, ahead)
	err = im.decode(ctx, in, out, p.big)
	if err != nil && in.err == nil && from.size-in.total <= maxDrain && !errors.Is(err, errBigWindow) {
		_, _ = io.Copy(io.Discard, in)
	}
	cancel()
	in.close()
	writeErr := out.close(err == nil)
	switch {
	case writeErr != nil:
		err = sinkError{writeErr}
	case in.err != nil && in.err != io.EOF:
		err = in.err
	default:
		err = in.judge(p.layer, from, out.explain(err))
	}
	return out.total, pfimg.Digest(out.hash.Sum(nil)), err
}

func (im *Image) decode(ctx context.Context, in *intake, out *outlet, big bool) error {
	head := in.head()
	switch {
	case len(head) == 0 && in.err == io.EOF:
		return errEmpty
	case needsBig(head) && !big:
		return errBigWindow
	}
	return im.decoders.copy(ctx, out, in, big)
}

// explain replaces a decoder's error when the real one is that it brought too much.
func (o *outlet) explain(err error) error {
	if o.total > o.limit {
		return fmt.Errorf("it decodes to more than %d bytes: %w", o.limit, pfimg.ErrIntegrity)
	}
	return err
}

// judge tells damaged stored bytes, which another request may mend, from a layer that holds something wrong. err is what
// the decoder said.
func (in *intake) judge(l layer, from *stored, err error) error {
	if in.hash == nil || errors.Is(err, errBigWindow) {
		return err
	}
	if in.err == io.EOF {
		if got := wireDigest(in.hash.Sum(nil)); got != l.wire {
			return wrongHash(got, from, in.total)
		}
		return err
	}
	if errors.Is(err, pfimg.ErrIntegrity) { // too much is left to read it for an answer
		return &wrongBytes{text: fmt.Sprintf("after %d stored bytes: %s", in.total, err), from: from.from()}
	}
	return err
}
