// Package client is the Go client of Pleiad's API, which our own CLI uses.
//
// A Client has one method per operation of the API. Those that change something
// answer the task that was recorded; FollowTask and WaitTask follow it to its
// end. Lists return everything, page after page; Each goes through a list
// without holding it.
//
// # Trust
//
// A server is trusted by roots (Options.RootCAs, or the machine's), or by the
// SHA-256 of its CA's certificate (Options.CAFingerprint): then the chain it
// shows must include that certificate and verify against it. FetchCertificate
// gets what there is to confirm before either is known.
//
// # Errors
//
// What the server refuses is a *ResponseError, in whose chain is the server's
// *model.Error: compare with errors.Is(err, model.ErrorOf(code)). Where no
// answer came, the error is the network's, with the endpoint.
//
// # Several endpoints
//
// Replicas are tried in turn: an endpoint that cannot be reached is left for
// the next one. A request that may have arrived is repeated elsewhere only if it
// changes nothing.
//
// # Concurrency
//
// All methods may be called from many goroutines at once. The context bounds a
// call; without a deadline of its own a call other than an upload or the
// following of a task ends after Options.Timeout.
package client
