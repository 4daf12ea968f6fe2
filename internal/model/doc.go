// Package model holds Pleiad's nouns: tenants, resource tickets, projects,
// flavors, images, availability zones, hosts, datastores, subnets, VMs,
// clusters and tasks, their states, their validation, and errors with codes.
//
// The types are at once what the store keeps and what the API serves: their
// JSON names are those of Photon Controller's v1.1 API, so that its clients
// find their fields. For that to be safe no type here holds a secret.
// Credentials, keys and tokens live in records of their own (see Secret),
// which no route of the API serves.
//
// The package is pure: it does no I/O, reads no clock and starts no goroutine.
// Times are milliseconds since the Unix epoch, as in Photon's API. Values are
// plain data; whoever shares one between goroutines must not change it.
package model
