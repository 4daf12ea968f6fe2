// Package api serves Pleiad over HTTP: the resource model of Photon
// Controller's v1.1 API under /v1, with OpenAPI 3.1 generated from the Go types
// at /v1/openapi.json and /v1/openapi.yaml, and what nodes ask of their
// controller under /node/v1.
//
// # What a request meets
//
// In this order: a request id (the client's own REQUEST-ID if it is decent),
// deadlines, recovery from panics, routing, authentication, the body's size and
// syntax, the body's shape, and then the operation. Whatever goes wrong on the
// way, the answer is a model.Error, {code, message, data, action}, with the
// status of its code. Only what net/http refuses before it has read a request's
// head (e.g. a head that is too large) is answered in plain text.
//
// Shapes are checked here, by the tags of model's specs: fields that are
// missing, unknown, of another type or out of bounds. What a field means is
// checked by the operation.
//
// # Routes
//
// A route is one line in a routes_*.go file and says who may use it: anyone
// (Public), whoever has a valid token (Authenticated), or administrators
// (Admin). /healthz is public; /metrics needs a token like any other read, which
// a scraper sends as a bearer token. Nodes authenticate with the one-time token
// in the body of their registration and with their client certificate from then
// on; they are not in the OpenAPI document.
//
// # Concurrency and ends
//
// The handler may be called from many goroutines at once and owns none that
// outlive a request. Event streams and long polls end when Config.Stopping is
// closed, so that a graceful stop of the http.Server need not wait for them;
// everything else has a deadline, except uploads, which may last as long as
// they move.
package api
