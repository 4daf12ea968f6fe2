package model

// TaskState is the state of a task or of one of its steps.
type TaskState string

// States of tasks and steps, as in Photon's API.
const (
	TaskQueued    TaskState = "QUEUED"
	TaskStarted   TaskState = "STARTED"
	TaskCompleted TaskState = "COMPLETED"
	TaskError     TaskState = "ERROR"
)

// Finished reports whether nothing more will happen.
func (s TaskState) Finished() bool { return s == TaskCompleted || s == TaskError }

// Entity names the object a task works on.
type Entity struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
}

// Task is one operation a user asked for. It ends when what was asked for is true.
type Task struct {
	ID         string    `json:"id"`
	Kind       string    `json:"kind"`
	SelfLink   string    `json:"selfLink,omitempty"`
	Operation  string    `json:"operation" example:"CREATE_CLUSTER"`
	State      TaskState `json:"state"`
	Entity     Entity    `json:"entity"`
	QueuedTime int64     `json:"queuedTime"`
	// StartedTime and EndTime are 0 until they come.
	StartedTime int64 `json:"startedTime,omitempty"`
	EndTime     int64 `json:"endTime,omitempty"`
	// Steps are in order of Sequence.
	Steps []Step `json:"steps"`
	// ResourceProperties is what some tasks answer with, e.g. a VM's networks.
	ResourceProperties any `json:"resourceProperties,omitempty"`
	// ProjectID and TenantID are where the task belongs, for lists.
	ProjectID string `json:"projectId,omitempty"`
	TenantID  string `json:"tenantId,omitempty"`
}

// Step is a part of a task.
type Step struct {
	Sequence    int               `json:"sequence"`
	Operation   string            `json:"operation"`
	State       TaskState         `json:"state"`
	QueuedTime  int64             `json:"queuedTime"`
	StartedTime int64             `json:"startedTime,omitempty"`
	EndTime     int64             `json:"endTime,omitempty"`
	Errors      []Error           `json:"errors,omitempty"`
	Warnings    []Error           `json:"warnings,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	// Progress says in words what is going on inside the step; empty when there is nothing to say.
	Progress string `json:"progress,omitempty" example:"2 of 3 nodes registered"`
}
