package model

import (
	"regexp"
	"strconv"
)

// Meta is what every object has.
type Meta struct {
	ID       string   `json:"id" doc:"Unique id, assigned by the server."`
	Kind     string   `json:"kind" doc:"What sort of object this is."`
	SelfLink string   `json:"selfLink,omitempty" doc:"Where the object is served."`
	Name     string   `json:"name,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	// CreatedTime is additive to Photon's fields.
	CreatedTime int64 `json:"createdTime,omitempty" doc:"Milliseconds since the Unix epoch."`
}

// NameLimit is the longest name of an object, in characters.
const NameLimit = 63

var imageNamePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

var namePattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*$`)

// ValidateName checks a name by Photon's rule: a letter, then letters, digits
// and hyphens, at most NameLimit characters. field names the offender.
func ValidateName(field, name string) error {
	if len(name) == 0 || len(name) > NameLimit || !namePattern.MatchString(name) {
		shown := name
		if len(shown) > NameLimit {
			shown = shown[:NameLimit] + "…"
		}
		return Errorf(CodeInvalidEntity,
			"%s must be 1 to %d characters, start with a letter and have only letters, digits and hyphens (was %s)",
			field, NameLimit, strconv.Quote(shown))
	}
	return nil
}

// ValidateImageName checks an image's name. Photon's clients name images after
// their files, so dots and underscores are allowed besides a name's characters.
func ValidateImageName(name string) error {
	if len(name) == 0 || len(name) > NameLimit || !imageNamePattern.MatchString(name) {
		return Errorf(CodeInvalidEntity,
			"name must be 1 to %d characters, start with a letter or digit and have only letters, digits, dots, underscores and hyphens (was %s)",
			NameLimit, strconv.Quote(name[:min(len(name), NameLimit)]))
	}
	return nil
}

// Condition says one thing that is true or false of an object, for people to
// read and programs to wait for. The shape is Kubernetes'.
type Condition struct {
	Type    string `json:"type" example:"Ready"`
	Status  string `json:"status" enum:"True,False,Unknown"`
	Reason  string `json:"reason,omitempty" doc:"One word for programs."`
	Message string `json:"message,omitempty" doc:"A sentence for people."`
	// Time is when Status last changed.
	Time int64 `json:"time" doc:"When the status last changed, milliseconds since the Unix epoch."`
}

// SetCondition returns conditions with c in them; the time of an unchanged
// status is kept, so that it says since when.
func SetCondition(conditions []Condition, c Condition) []Condition {
	out := make([]Condition, 0, len(conditions)+1)
	for _, old := range conditions {
		if old.Type != c.Type {
			out = append(out, old)
			continue
		}
		if old.Status == c.Status {
			c.Time = old.Time
		}
	}
	return append(out, c)
}
