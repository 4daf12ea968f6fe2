package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/pleiad/pleiad/internal/model"
)

// httpError is a model.Error on its way out through huma.
type httpError struct{ cause *model.Error }

func (e httpError) Error() string                { return e.cause.Error() }
func (e httpError) Unwrap() error                { return e.cause }
func (e httpError) GetStatus() int               { return e.cause.Code.Status() }
func (e httpError) MarshalJSON() ([]byte, error) { return json.Marshal(e.cause) }

// huma keeps how it validates, and what its errors look like, in package
// variables, so they can only be set for the whole program. Pleiad serves one
// huma API.
func init() {
	huma.NewErrorWithContext = func(_ huma.Context, status int, message string, causes ...error) huma.StatusError {
		return httpError{refusal(status, message, causes)}
	}
	// Documents the type of errors; never called for a request.
	huma.NewError = func(status int, message string, causes ...error) huma.StatusError {
		return httpError{refusal(status, message, causes)}
	}
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false

	// Photon's form is "<path> <rule> (was <value>)"; these are the rules. Those
	// that begin with a dot continue the path.
	validation.MsgUnexpectedProperty = "is not a known field"
	validation.MsgExpectedRequiredProperty = ".%s must be given"
	validation.MsgExpectedBoolean = "must be true or false"
	validation.MsgExpectedNumber = "must be a number"
	validation.MsgExpectedInteger = "must be an integer"
	validation.MsgExpectedString = "must be a string"
	validation.MsgExpectedArray = "must be a list"
	validation.MsgExpectedObject = "must be an object"
	validation.MsgExpectedOneOf = "must be one of %s"
	validation.MsgExpectedMinimumNumber = "must be at least %v"
	validation.MsgExpectedMaximumNumber = "must be at most %v"
	validation.MsgExpectedMinLength = "must have at least %d characters"
	validation.MsgExpectedMaxLength = "must have at most %d characters"
	validation.MsgExpectedMinItems = "must have at least %d items"
	validation.MsgExpectedMaxItems = "must have at most %d items"
}

// maxComplaints bounds how many faults of one body are listed.
const maxComplaints = 20

// refusal turns what huma found wrong with a request into an error of ours.
func refusal(status int, message string, causes []error) *model.Error {
	if status == http.StatusInternalServerError {
		return model.AsError(errors.Join(causes...))
	}
	var complaints []string
	for i, cause := range causes {
		if i == maxComplaints {
			complaints = append(complaints, fmt.Sprintf("and %d more", len(causes)-i))
			break
		}
		var detail huma.ErrorDetailer
		if errors.As(cause, &detail) {
			complaints = append(complaints, complaint(detail.ErrorDetail()))
		} else {
			complaints = append(complaints, cause.Error())
		}
	}
	if len(complaints) > 0 {
		message = strings.Join(complaints, ", ")
	}
	return model.Errorf(model.CodeInvalidEntity, "%s", message)
}

// secretFields are never echoed.
var secretFields = map[string]bool{"password": true, "token": true}

// complaint is "<path> <rule> (was <value>)". The value is left out where it is
// more than a scalar: it may contain a secret, and it is long.
func complaint(d *huma.ErrorDetail) string {
	path := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body"), ".")
	text := path + " " + d.Message
	if strings.HasPrefix(d.Message, ".") {
		text = strings.TrimPrefix(path+d.Message, ".")
	} else if path == "" {
		text = "the body " + d.Message
	}
	if secretFields[path[strings.LastIndexByte(path, '.')+1:]] {
		return text
	}
	switch v := d.Value.(type) {
	case string:
		return text + " (was " + strconv.Quote(clip(v)) + ")"
	case bool, float64, nil:
		if d.Value == nil && strings.HasPrefix(d.Message, ".") {
			return text
		}
		b, err := json.Marshal(v)
		if err != nil {
			return text
		}
		return text + " (was " + string(b) + ")"
	default:
		return text
	}
}

// clip shortens what a client sent, to show it back.
func clip(s string) string {
	const limit = 64
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return string(runes[:limit]) + "…"
}

// writeError answers with err, which must be at the end of its way: nothing has
// been written yet.
func writeError(w http.ResponseWriter, err *model.Error) {
	status := err.Code.Status()
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, status, err)
}

// writeJSON answers with v. An error means that the client is gone, which the
// request's log line shows by its status and size alone.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}
