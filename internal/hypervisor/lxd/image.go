package lxd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"

	"github.com/lxc/incus/v6/shared/api"

	"github.com/pleiad/pleiad/internal/hypervisor"
	"github.com/pleiad/pleiad/internal/model"
)

// Formats of an image's parts.
const (
	partMetadata = "lxd-metadata"
	partSquashfs = "lxd-squashfs"
)

const (
	propertyImage  = "pleiad.image"
	propertySHA256 = "pleiad.sha256"
)

func imageAlias(id string) string { return "pleiad-" + id }

// EnsureImage implements hypervisor.Driver. LXD knows an image by the SHA-256 of
// its parts, so equal content is stored once, whoever uploaded it; the alias says
// that it is this image of ours.
func (d *Driver) EnsureImage(ctx context.Context, image hypervisor.Image, open func() (hypervisor.Payload, error)) error {
	if err := checkID(image.ID); err != nil {
		return err
	}
	return d.call(ctx, "take image "+image.ID, uploadTimeout, func(ctx context.Context, c client) error {
		unlock, err := d.uploads.lock(ctx, image.ID)
		if err != nil {
			return err
		}
		defer unlock()
		_, _, err = c.GetImageAlias(imageAlias(image.ID))
		if err == nil || !api.StatusErrorCheck(err, http.StatusNotFound) {
			return err
		}
		fingerprint, err := findUpload(c, image)
		if err != nil {
			return err
		}
		if fingerprint == "" {
			payload, err := open()
			if err != nil {
				return &sourceError{fmt.Errorf("open image %s: %w", image.ID, err)}
			}
			fingerprint, err = d.upload(ctx, c, image, payload)
			if payload.Close != nil {
				err = errors.Join(err, payload.Close())
			}
			if err != nil {
				return err
			}
			unpack(ctx, c, image.ID, fingerprint)
		}
		alias := api.ImageAliasesPost{}
		alias.Name, alias.Target, alias.Type = imageAlias(image.ID), fingerprint, "container"
		alias.Description = image.Name
		return c.CreateImageAlias(alias)
	})
}

// findUpload finds an upload of the same file that has no alias yet because its
// caller was cut off, or has the alias of another image.
func findUpload(c client, image hypervisor.Image) (fingerprint string, err error) {
	if image.SHA256 == "" {
		return "", nil
	}
	images, err := c.GetImages()
	if err != nil {
		return "", err
	}
	for _, i := range images {
		if i.Properties[propertySHA256] == image.SHA256 {
			return i.Fingerprint, nil
		}
	}
	return "", nil
}

// upload streams the parts to the daemon and returns the image's fingerprint.
func (d *Driver) upload(ctx context.Context, c client, image hypervisor.Image, payload hypervisor.Payload) (string, error) {
	for _, name := range []string{partMetadata, partSquashfs} {
		if payload.Parts[name].Reader == nil {
			return "", model.Errorf(model.CodeUnsupported, "image %s has no part %s: it was not built for LXD", image.ID, name)
		}
	}
	read, write := io.Pipe()
	form := multipart.NewWriter(write)
	sum := sha256.New()
	sent := make(chan error, 1)
	go func() {
		err := sendParts(form, payload, sum)
		write.CloseWithError(err) // nil is the regular end
		sent <- err
	}()
	fingerprint, err := d.post(ctx, c, image, form.FormDataContentType(), read)
	// Whatever the daemon said, the goroutine must end before the payload is closed, and its reason comes first.
	read.CloseWithError(errUploadOver)
	if sendErr := <-sent; sendErr != nil && !errors.Is(sendErr, errUploadOver) && !errors.Is(sendErr, io.ErrClosedPipe) {
		return "", sendErr
	}
	if err == nil {
		return fingerprint, nil
	}
	// LXD refuses content it has; then it is somebody's image, or was uploaded by another of us meanwhile.
	fingerprint = hex.EncodeToString(sum.Sum(nil))
	if _, _, lookErr := c.GetImage(fingerprint); lookErr == nil {
		return fingerprint, nil
	}
	return "", err
}

var errUploadOver = errors.New("the host ended the upload")

// sourceError is a failure of the image's source, not of the host.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// source tells failures to read from failures to send.
type source struct{ io.Reader }

func (s source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{fmt.Errorf("read the image: %w", err)}
	}
	return n, err
}

func sendParts(form *multipart.Writer, payload hypervisor.Payload, sum hash.Hash) error {
	for _, p := range []struct{ field, name string }{{"metadata", partMetadata}, {"rootfs", partSquashfs}} {
		part := payload.Parts[p.name]
		w, err := form.CreateFormFile(p.field, p.name)
		if err != nil {
			return err
		}
		// One byte more shows a part that is too long.
		n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(source{part.Reader}, part.Size+1))
		if err != nil {
			return err
		}
		if n != part.Size {
			return model.Errorf(model.CodeImageUploadError, "the image's part %s does not have its %d bytes: it is incomplete or damaged", p.name, part.Size).
				Do("upload the image again")
		}
	}
	return form.Close()
}

// post sends the form. The client's CreateImage is not used: it heeds no context, and LXD does not know its headers.
func (d *Driver) post(ctx context.Context, c client, image hypervisor.Image, contentType string, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://host/1.0/images", body)
	if err != nil {
		return "", err
	}
	properties := url.Values{
		propertyImage: {image.ID}, propertySHA256: {image.SHA256}, "description": {image.Name},
	}.Encode()
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-LXD-properties", properties)
	req.Header.Set("X-Incus-properties", properties)
	resp, err := d.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := decode(resp)
	if err != nil {
		return "", err
	}
	started, err := answer.MetadataAsOperation()
	if err != nil {
		return "", err
	}
	op, err := waitID(c, started.ID)
	if err != nil {
		return "", err
	}
	fingerprint, _ := op.Metadata["fingerprint"].(string)
	if fingerprint == "" {
		return "", errors.New("the host did not say the image's fingerprint")
	}
	return fingerprint, nil
}

// DeleteImage implements hypervisor.Driver. Content that another image of ours
// still needs, or that was not uploaded by us, stays.
func (d *Driver) DeleteImage(ctx context.Context, imageID string) error {
	if err := checkID(imageID); err != nil {
		return err
	}
	return d.call(ctx, "delete image "+imageID, changeTimeout, func(ctx context.Context, c client) error {
		unlock, err := d.uploads.lock(ctx, imageID)
		if err != nil {
			return err
		}
		defer unlock()
		images, err := c.GetImages()
		if err != nil {
			return err
		}
		for _, i := range images {
			ours, others := i.Properties[propertyImage] == imageID, 0
			for _, a := range i.Aliases {
				if a.Name != imageAlias(imageID) {
					others++
					continue
				}
				ours = ours || i.Properties[propertyImage] != ""
				if err := c.DeleteImageAlias(a.Name); err != nil && !api.StatusErrorCheck(err, http.StatusNotFound) {
					return err
				}
			}
			if !ours || others > 0 {
				continue
			}
			op, err := c.DeleteImage(i.Fingerprint)
			if err == nil {
				_, err = wait(c, op)
			}
			if err != nil && !api.StatusErrorCheck(err, http.StatusNotFound) {
				return err
			}
		}
		return nil
	})
}
