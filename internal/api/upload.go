package api

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/pleiad/pleiad/internal/model"
)

// Replication types of an image.
const (
	replicateEager    = "EAGER"
	replicateOnDemand = "ON_DEMAND"
)

// upload is the input of a route that streams its body.
type upload struct {
	request *http.Request
	writer  http.ResponseWriter
}

// Resolve is huma's way to hand over the request.
func (u *upload) Resolve(c huma.Context) []error {
	u.request, u.writer = humago.Unwrap(c)
	return nil
}

func (s *server) uploadRoute(o huma.Operation) {
	o.DefaultStatus = http.StatusCreated
	o.Description += " The body is multipart/form-data: the part ImageReplication (EAGER or ON_DEMAND; EAGER when " +
		"left out), and after it the part file, whose file name is the image's name. It is streamed: the order matters."
	o = withRoute(o, func(rt *route) { rt.stream = true })
	huma.Register(s.huma, o, func(ctx context.Context, in *upload) (*answer[model.Task], error) {
		return taskAnswer(ctx, s)(s.createImage(ctx, in))
	})
	// huma would read a body that it knows of into memory, so it is told afterwards.
	s.huma.OpenAPI().Paths[o.Path].Post.RequestBody = &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeObject, Required: []string{"file"},
			Properties: map[string]*huma.Schema{
				"ImageReplication": {Type: huma.TypeString, Enum: []any{replicateEager, replicateOnDemand}},
				"file":             {Type: huma.TypeString, Format: "binary"},
			},
		}}},
	}
}

// createImage hands the file to the operation as it arrives; nothing of it is
// held here.
func (s *server) createImage(ctx context.Context, in *upload) (*model.Task, error) {
	r := in.request
	r.Body = &movingBody{r.Body, http.NewResponseController(in.writer)}
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, model.Errorf(model.CodeImageUploadError, "the body must be multipart/form-data with a part named file: %v", err)
	}
	replication := replicateEager
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, model.Errorf(model.CodeImageUploadError, "the upload has no part named file")
		}
		if err != nil {
			return nil, uploadCut(err)
		}
		switch part.FormName() {
		case "ImageReplication":
			if replication, err = readReplication(part); err != nil {
				return nil, err
			}
		case "file":
			return s.receive(ctx, part, replication)
		default:
			return nil, model.Errorf(model.CodeImageUploadError, "the upload has a part named %q; the parts are ImageReplication, then file",
				clip(part.FormName()))
		}
	}
}

// receive runs the operation over the part that is the file.
func (s *server) receive(ctx context.Context, part *multipart.Part, replication string) (*model.Task, error) {
	name := part.FileName()
	if name == "" {
		return nil, model.Errorf(model.CodeImageUploadError, "the part named file has no file name, which is the image's name")
	}
	body := &uploadBody{part: part}
	task, err := s.Operations.CreateImage(ctx, name, replication, body)
	if body.err != nil {
		// Whatever the operation made of it, this is the cause.
		return nil, uploadCut(body.err)
	}
	return task, err
}

// readReplication reads a part that is a word.
func readReplication(part *multipart.Part) (string, error) {
	b, err := io.ReadAll(io.LimitReader(part, 64))
	if err != nil {
		return "", uploadCut(err)
	}
	switch value := strings.TrimSpace(string(b)); value {
	case replicateEager, replicateOnDemand:
		return value, nil
	default:
		return "", model.Errorf(model.CodeInvalidEntity, "ImageReplication must be one of %s, %s (was %q)",
			replicateEager, replicateOnDemand, clip(value))
	}
}

func uploadCut(err error) *model.Error {
	return model.Errorf(model.CodeImageUploadError, "the upload was cut off: %v", err).Do("upload the image again")
}

// uploadBody is what the operation reads. It remembers how reading ended.
type uploadBody struct {
	part io.Reader
	err  error // other than io.EOF
}

func (b *uploadBody) Read(p []byte) (int, error) {
	n, err := b.part.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// movingBody is a request's body that may take as long as it moves: each read
// has a deadline of its own.
type movingBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

func (b *movingBody) Read(p []byte) (int, error) {
	// An error here means that the connection has no deadlines, as in some tests.
	_ = b.conn.SetReadDeadline(time.Now().Add(stallTimeout))
	n, err := b.ReadCloser.Read(p)
	_ = b.conn.SetReadDeadline(time.Time{}) // not while the operation works on what it got
	return n, err
}
