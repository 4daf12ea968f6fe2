package model

import (
	"errors"
	"fmt"
)

// Code names a class of error. The names are Photon Controller's, so that its
// clients recognise them; those in the second group of statuses are ours.
type Code string

// Codes used by Pleiad. Status gives the HTTP status of each.
const (
	CodeQuotaError                Code = "QuotaError"
	CodeStateError                Code = "StateError"
	CodeInsufficientCapacity      Code = "InsufficientCapacity"
	CodeNotEnoughCPU              Code = "NotEnoughCpuResource"
	CodeNotEnoughMemory           Code = "NotEnoughMemoryResource"
	CodeNotEnoughDatastore        Code = "NotEnoughDatastoreCapacity"
	CodeUnfulfillableAffinities   Code = "UnfullfillableAffinities" // Photon's spelling
	CodeNoSuchResource            Code = "NoSuchResource"
	CodeInvalidFlavor             Code = "InvalidFlavor"
	CodeInvalidFlavorSpec         Code = "InvalidFlavorSpecification"
	CodeFlavorInUse               Code = "FlavorInUse"
	CodeContainerNotEmpty         Code = "ContainerNotEmpty"
	CodeConcurrentTask            Code = "ConcurrentTask"
	CodeNameTaken                 Code = "NameTaken"
	CodeInvalidEntity             Code = "InvalidEntity"
	CodeInvalidJSON               Code = "InvalidJson"
	CodeInvalidVMState            Code = "InvalidVmState"
	CodeInvalidHostState          Code = "InvalidHostState"
	CodeInvalidImageState         Code = "InvalidImageState"
	CodeInvalidOperation          Code = "InvalidOperation"
	CodeImageUploadError          Code = "ImageUploadError"
	CodeUnsupportedImageFileType  Code = "UnsupportedImageFileType"
	CodeInvalidTicketSubdivide    Code = "InvalidResourceTicketSubdivide"
	CodeHostHasVMs                Code = "HostHasVms"
	CodeDuplicateHost             Code = "DuplicateHost"
	CodeInvalidQueryParams        Code = "InvalidQueryParams"
	CodeInvalidPageSize           Code = "InvalidPageSize"
	CodeInvalidNetworkConfig      Code = "InvalidNetworkConfig"
	CodeInvalidNetworkState       Code = "InvalidNetworkState"
	CodeIPAddressInUse            Code = "IpAddressInUse"
	CodeMissingAuthToken          Code = "MissingAuthToken"
	CodeInvalidAuthToken          Code = "InvalidAuthToken"
	CodeExpiredAuthToken          Code = "ExpiredAuthToken"
	CodeMalformedAuthToken        Code = "MalformedAuthToken"
	CodeAccessForbidden           Code = "AccessForbidden"
	CodeSystemPaused              Code = "SystemPaused"
	CodeNotFound                  Code = "NotFound"
	CodeTenantNotFound            Code = "TenantNotFound"
	CodeProjectNotFound           Code = "ProjectNotFound"
	CodeResourceTicketNotFound    Code = "ResourceTicketNotFound"
	CodeFlavorNotFound            Code = "FlavorNotFound"
	CodeAvailabilityZoneNotFound  Code = "AvailabilityZoneNotFound"
	CodeVMNotFound                Code = "VmNotFound"
	CodeNetworkNotFound           Code = "NetworkNotFound"
	CodeDatastoreNotFound         Code = "DatastoreNotFound"
	CodeTaskNotFound              Code = "TaskNotFound"
	CodeHostNotFound              Code = "HostNotFound"
	CodeOrphanNotFound            Code = "OrphanNotFound"
	CodeDeploymentNotFound        Code = "DeploymentNotFound"
	CodeImageNotFound             Code = "ImageNotFound"
	CodeClusterNotFound           Code = "ClusterNotFound"
	CodeClusterTypeNotConfigured  Code = "ClusterTypeNotConfigured"
	CodeClusterTypeAlreadyEnabled Code = "ClusterTypeAlreadyConfigured"
	CodePageExpired               Code = "PageExpired"
	CodeTooManyRequests           Code = "TooManyRequests"
	CodeInternalError             Code = "InternalError"
	CodeHostProvisionFailed       Code = "HostProvisionFailed"

	// Ours, where Photon had one code for many causes or none at all.
	CodeRequestTooLarge   Code = "RequestTooLarge"   // the body is over the limit of its route
	CodeStorageFull       Code = "StorageFull"       // the server's own disk cannot take it
	CodeHostUnreachable   Code = "HostUnreachable"   // the host's address does not answer
	CodeHostCertificate   Code = "HostCertificate"   // the host showed another certificate than agreed
	CodeHostUnauthorized  Code = "HostUnauthorized"  // the host refused our credentials
	CodeHostDriver        Code = "HostDriver"        // what answers is not the hypervisor the driver speaks to
	CodeHostLimits        Code = "HostLimits"        // a kernel limit of the host cannot carry what is asked
	CodeNodeNotReporting  Code = "NodeNotReporting"  // a node's agent was not heard of within its deadline
	CodeNodeStepFailed    Code = "NodeStepFailed"    // a step of a node's plan failed
	CodeHypervisorError   Code = "HypervisorError"   // the hypervisor refused or failed an operation
	CodeUnsupported       Code = "Unsupported"       // this hypervisor or kind cannot do it
	CodeInvalidRegistered Code = "AlreadyRegistered" // a node's one-time token was used before, with another key
)

// Error is an error a user can act on. It travels unchanged from where it is
// found to the API's answer or to the failing step of a task.
type Error struct {
	Code    Code              `json:"code"`
	Message string            `json:"message" doc:"The cause, in words, naming field and limit."`
	Data    map[string]string `json:"data"`
	// Action is the next thing to do, in words; empty where the message says it.
	Action string `json:"action,omitempty" doc:"What to do next."`
}

// Errorf returns an Error with a formatted message. %w is not supported: an
// Error is the end of a chain, made where the cause is understood.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Data: map[string]string{}}
}

// With adds a key to the error's data and returns the error.
func (e *Error) With(key, value string) *Error {
	if e.Data == nil {
		e.Data = map[string]string{}
	}
	e.Data[key] = value
	return e
}

// Do sets the next action and returns the error.
func (e *Error) Do(format string, args ...any) *Error {
	e.Action = fmt.Sprintf(format, args...)
	return e
}

// Error returns code, message and next action in one line.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.Action != "" {
		s += " (" + e.Action + ")"
	}
	return s
}

// Is makes errors.Is compare by code, so that callers need not build the message.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// ErrorOf returns a value to compare with errors.Is: any Error of that code.
func ErrorOf(code Code) error { return &Error{Code: code} }

// AsError returns the Error in err's chain. An error that has none becomes an
// InternalError: its text is for logs, so it is not shown to the user.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(CodeInternalError, "an internal error occurred").
		Do("look up the request id in the server's log")
}

// Status returns the HTTP status of the code, as in Photon's table. Codes that
// end in NotFound are 404; a code without a row is 400. They are plain numbers,
// for a pure room does not import net/http.
func (c Code) Status() int {
	switch c {
	case CodeMissingAuthToken, CodeInvalidAuthToken, CodeExpiredAuthToken:
		return 401
	case CodeAccessForbidden, CodeSystemPaused:
		return 403
	case CodeNotFound, CodeTenantNotFound, CodeProjectNotFound, CodeResourceTicketNotFound,
		CodeFlavorNotFound, CodeAvailabilityZoneNotFound, CodeVMNotFound, CodeNetworkNotFound,
		CodeDatastoreNotFound, CodeTaskNotFound, CodeHostNotFound, CodeOrphanNotFound, CodeDeploymentNotFound,
		CodeImageNotFound, CodeClusterNotFound, CodeClusterTypeNotConfigured, CodePageExpired:
		return 404
	case CodeTooManyRequests:
		return 429
	case CodeRequestTooLarge:
		return 413
	case CodeStorageFull:
		return 507
	case CodeInternalError, CodeHostProvisionFailed, CodeHypervisorError:
		return 500
	default:
		return 400
	}
}
