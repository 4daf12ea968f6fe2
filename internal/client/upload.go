package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"

	"github.com/pleiad/pleiad/internal/model"
)

// CreateImage uploads an image, which is streamed. name is what it will be
// called, replicationType EAGER or ON_DEMAND. An error of body cuts the upload
// off, and the server keeps nothing of it. Only ctx bounds the call.
func (c *Client) CreateImage(ctx context.Context, name, replicationType string, body io.Reader) (*model.Task, error) {
	// The form around the file is made beforehand, so that nothing of the file is held.
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	if err := parts.WriteField("ImageReplication", replicationType); err != nil {
		return nil, fmt.Errorf("encode the upload: %w", err)
	}
	if _, err := parts.CreateFormFile("file", name); err != nil {
		return nil, fmt.Errorf("encode the upload: %w", err)
	}
	head := bytes.Clone(form.Bytes())
	form.Reset()
	if err := parts.Close(); err != nil {
		return nil, fmt.Errorf("encode the upload: %w", err)
	}
	response, err := c.open(ctx, request{
		method: http.MethodPost, path: at("images"),
		header: http.Header{
			"Content-Type": {parts.FormDataContentType()},
			// What is refused by its token alone is not uploaded first.
			"Expect": {"100-continue"},
		},
		body: io.MultiReader(bytes.NewReader(head), body, &form), length: -1,
	})
	if err != nil {
		return nil, err
	}
	t := new(model.Task)
	if err := decode(response, t); err != nil {
		return nil, err
	}
	return t, nil
}
