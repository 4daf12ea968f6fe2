package model

// Unit of a quota line.
type Unit string

// Units as in Photon's API. Sizes are powers of 1024.
const (
	UnitGB    Unit = "GB"
	UnitMB    Unit = "MB"
	UnitKB    Unit = "KB"
	UnitB     Unit = "B"
	UnitCount Unit = "COUNT"
)

// QuotaLineItem is one limit, one usage or one cost.
type QuotaLineItem struct {
	Key   string  `json:"key" example:"vm.memory" minLength:"1" maxLength:"127"`
	Value float64 `json:"value" minimum:"0" example:"4"`
	Unit  Unit    `json:"unit" enum:"GB,MB,KB,B,COUNT"`
}

// Tenant is a company or a department: resource tickets and projects belong to it.
type Tenant struct {
	Meta
	SecurityGroups []SecurityGroup `json:"securityGroups,omitempty"`
}

// SecurityGroup names a group of users who may use an object.
type SecurityGroup struct {
	Name      string `json:"name"`
	Inherited bool   `json:"inherited"`
}

// ResourceTicket grants a tenant resources: its limits, and what of them its
// projects have reserved (usage).
type ResourceTicket struct {
	Meta
	TenantID string          `json:"tenantId"`
	Limits   []QuotaLineItem `json:"limits"`
	Usage    []QuotaLineItem `json:"usage"`
}

// Project reserves a part of a resource ticket; VMs, disks and clusters belong to it.
type Project struct {
	Meta
	TenantID       string          `json:"tenantId"`
	ResourceTicket ProjectTicket   `json:"resourceTicket"`
	SecurityGroups []SecurityGroup `json:"securityGroups,omitempty"`
}

// ProjectTicket is the project's reservation and its use.
type ProjectTicket struct {
	TenantTicketID   string          `json:"tenantTicketId"`
	TenantTicketName string          `json:"tenantTicketName"`
	Limits           []QuotaLineItem `json:"limits"`
	Usage            []QuotaLineItem `json:"usage"`
}
