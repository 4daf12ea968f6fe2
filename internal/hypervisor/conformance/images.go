package conformance

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing/iotest"

	"github.com/google/uuid"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// tampered is the fixture's payload with the reader of one part replaced.
func (s *suite) tampered(change func(hypervisor.Part) io.Reader) func() (hypervisor.Payload, error) {
	return func() (hypervisor.Payload, error) {
		p, err := s.Open()
		if err != nil {
			return p, err
		}
		// The largest part is the file system, the last that is sent.
		largest := ""
		for name, part := range p.Parts {
			if largest == "" || part.Size > p.Parts[largest].Size {
				largest = name
			}
		}
		part := p.Parts[largest]
		part.Reader = change(part)
		p.Parts[largest] = part
		return p, nil
	}
}

// spoiled tries to bring an image to the host that cannot be, and returns the error.
func (s *suite) spoiled(open func() (hypervisor.Payload, error)) error {
	s.Helper()
	before := s.Images(s.T)
	image := hypervisor.Image{ID: uuid.NewString(), Name: "spoiled", SHA256: strings.Repeat("ef", 32)}
	err := s.Driver.EnsureImage(s.ctx, image, open)
	if err == nil {
		s.Fatal("it was taken")
	}
	if n := s.Images(s.T); n != before {
		s.Errorf("the host has %d images, before %d", n, before)
	}
	return err
}

func imageTruncated(s *suite) {
	err := s.spoiled(s.tampered(func(p hypervisor.Part) io.Reader { return io.LimitReader(p.Reader, p.Size/2) }))
	s.code(err, model.CodeImageUploadError, "a part with half its bytes")
}

func imageTooLong(s *suite) {
	err := s.spoiled(s.tampered(func(p hypervisor.Part) io.Reader { return io.MultiReader(p.Reader, strings.NewReader("more")) }))
	s.code(err, model.CodeImageUploadError, "a part with more than its bytes")
}

func imageSourceFails(s *suite) {
	broken := errors.New("the disk of the server is broken")
	err := s.spoiled(s.tampered(func(p hypervisor.Part) io.Reader {
		return io.MultiReader(io.LimitReader(p.Reader, p.Size/2), iotest.ErrReader(broken))
	}))
	if !errors.Is(err, broken) {
		s.Errorf("error %v while reading, want the source's own", err)
	}
	err = s.spoiled(func() (hypervisor.Payload, error) { return hypervisor.Payload{}, broken })
	if !errors.Is(err, broken) {
		s.Errorf("error %v while opening, want the source's own", err)
	}
}

func imageOfAnother(s *suite) {
	err := s.spoiled(func() (hypervisor.Payload, error) {
		return hypervisor.Payload{Parts: map[string]hypervisor.Part{"floppy": {Reader: strings.NewReader("x"), Size: 1}}}, nil
	})
	s.code(err, model.CodeUnsupported, "a payload without a known part")
}

func imageConcurrent(s *suite) {
	var opened, closed atomic.Int32
	open := func() (hypervisor.Payload, error) {
		opened.Add(1)
		p, err := s.Open()
		inner := p.Close
		p.Close = func() error {
			closed.Add(1)
			if inner == nil {
				return nil
			}
			return inner()
		}
		return p, err
	}
	for _, err := range atOnce(4, func() error { return s.Driver.EnsureImage(s.ctx, s.image, open) }) {
		s.ok(err, "ensure")
	}
	if opened.Load() != 1 || closed.Load() != 1 {
		s.Errorf("opened %d times, closed %d times, want once each", opened.Load(), closed.Load())
	}
}

func imageThere(s *suite) {
	s.ensureImage()
	unopened := func() (hypervisor.Payload, error) {
		return hypervisor.Payload{}, errors.New("opened, although the host has the image")
	}
	s.ok(s.Driver.EnsureImage(s.ctx, s.image, unopened), "ensure again")
	s.ok(s.Other.EnsureImage(s.ctx, s.image, unopened), "ensure in another session")
}

// imageTwins is what happens when one file is uploaded twice, or by two installations.
func imageTwins(s *suite) {
	s.ensureImage()
	twin := s.image
	twin.ID, twin.SHA256 = uuid.NewString(), strings.Repeat("12", 32)
	s.ok(s.Other.EnsureImage(s.ctx, twin, s.Open), "ensure the twin")
	s.ok(s.Other.DeleteImage(s.ctx, twin.ID), "delete the twin")
	spec := s.spec("of-the-first")
	s.create(spec)
	spec = s.spec("of-the-twin")
	spec.ImageID, spec.Networks = twin.ID, nil
	if _, err := s.Driver.CreateVM(s.ctx, spec); err == nil {
		s.cleanUp(spec.ID)
		s.Error("a VM was made of an image that was deleted")
	}
}
