package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/pleiad/pleiad/internal/model"
)

// imageForm is an upload as Photon's clients send it.
func imageForm(replication, name, content string) (body, contentType string) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if replication != "" {
		_ = w.WriteField("ImageReplication", replication)
	}
	part, _ := w.CreateFormFile("file", name)
	_, _ = io.WriteString(part, content)
	_ = w.Close()
	return form.String(), w.FormDataContentType()
}

func TestUpload(t *testing.T) {
	f := newFixture(t)
	content := strings.Repeat("image ", 300_000) // more than any buffer on the way
	for _, c := range []struct{ replication, call string }{
		{"ON_DEMAND", "CreateImage node.tar ON_DEMAND"}, {"EAGER", "CreateImage node.tar EAGER"}, {"", "CreateImage node.tar EAGER"},
	} {
		body, contentType := imageForm(c.replication, "node.tar", content)
		parse[model.Task](f, f.do("POST", "/v1/images", "admin", body, "Content-Type", contentType), http.StatusCreated)
		calls := f.ops.called()
		if calls[len(calls)-1] != c.call || f.ops.image.String() != content || f.ops.imageErr != nil {
			t.Errorf("called %q with %d bytes, %v", calls[len(calls)-1], f.ops.image.Len(), f.ops.imageErr)
		}
		f.ops.image.Reset()
	}
}

func TestBadUploads(t *testing.T) {
	f := newFixture(t)
	good, contentType := imageForm("EAGER", "a", "content")
	wrong, wrongType := imageForm("SOMETIMES", "a", "content")
	noFile := "--x\r\nContent-Disposition: form-data; name=\"ImageReplication\"\r\n\r\nEAGER\r\n--x--\r\n"
	other := "--x\r\nContent-Disposition: form-data; name=\"surprise\"\r\n\r\nEAGER\r\n--x--\r\n"
	noName := "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ncontent\r\n--x--\r\n"
	for _, c := range []struct {
		name, body, contentType string
		code                    model.Code
	}{
		{"JSON", `{"name":"a"}`, "application/json", model.CodeImageUploadError},
		{"no boundary", good, "multipart/form-data", model.CodeImageUploadError},
		{"another boundary", good, "multipart/form-data; boundary=other", model.CodeImageUploadError},
		{"nothing", "", contentType, model.CodeImageUploadError},
		{"no file", noFile, "multipart/form-data; boundary=x", model.CodeImageUploadError},
		{"no name", noName, "multipart/form-data; boundary=x", model.CodeImageUploadError},
		{"another part", other, "multipart/form-data; boundary=x", model.CodeImageUploadError},
		{"replication", wrong, wrongType, model.CodeInvalidEntity},
		{"truncated in the file", good[:strings.Index(good, "content")+4], contentType, model.CodeImageUploadError},
		{"truncated at its end", good[:strings.Index(good, "content")+7], contentType, model.CodeImageUploadError},
		{"truncated in the boundary", good[:len(good)-8], contentType, model.CodeImageUploadError},
		{"truncated in a head", good[:60], contentType, model.CodeImageUploadError},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t, f.ops.imageErr = t, nil
			f.refused(f.do("POST", "/v1/images", "admin", c.body, "Content-Type", c.contentType), http.StatusBadRequest, c.code)
			if strings.HasPrefix(c.name, "truncated") && c.name != "truncated in a head" && !errors.Is(f.ops.imageErr, io.ErrUnexpectedEOF) {
				t.Errorf("the operation saw %v", f.ops.imageErr)
			}
			if f.ops.image.Len() != 0 || len(f.ops.called()) != 0 {
				t.Errorf("something is left: %d bytes, %v", f.ops.image.Len(), f.ops.called())
			}
		})
	}
}

// A client that goes away in the middle is an error to the operation, over
// HTTP/1 and HTTP/2.
func TestUploadCutOff(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			f := newFixture(t)
			seen := make(chan error, 1)
			f.api.Operations = &cutOff{operations: f.ops, seen: seen}
			transport := &http.Transport{TLSClientConfig: f.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
			transport.TLSClientConfig.NextProtos = nil
			if protocol == "h2" {
				transport.ForceAttemptHTTP2 = true
			} else {
				transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			}
			defer transport.CloseIdleConnections()
			form, contentType := imageForm("EAGER", "a", strings.Repeat("x", 1<<20))
			broken := errors.New("the disk is on fire")
			q, err := http.NewRequest("POST", f.URL+"/v1/images", io.MultiReader(strings.NewReader(form[:1<<19]), failing{broken}))
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Content-Type", contentType)
			q.Header.Set("Authorization", "Bearer admin")
			response, err := transport.RoundTrip(q)
			if err == nil {
				response.Body.Close()
				t.Fatalf("the upload was answered with %s", response.Status)
			}
			if err := <-seen; err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the operation saw %v", err)
			}
		})
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// cutOff tells how reading the image ended.
type cutOff struct {
	*operations
	seen chan error
}

func (c *cutOff) CreateImage(_ context.Context, _, _ string, body io.Reader) (*model.Task, error) {
	_, err := io.Copy(io.Discard, body)
	c.seen <- err
	return nil, fmt.Errorf("store: %w", err)
}

// An operation that refuses an image early is heard, though the client still sends.
func TestUploadRefusedEarly(t *testing.T) {
	f := newFixture(t)
	f.ops.stopAfter = 10
	f.ops.fail = model.Errorf(model.CodeUnsupportedImageFileType, "not an image")
	body, contentType := imageForm("EAGER", "a", strings.Repeat("x", 4<<20))
	f.refused(f.do("POST", "/v1/images", "admin", body, "Content-Type", contentType), http.StatusBadRequest, model.CodeUnsupportedImageFileType)
}
