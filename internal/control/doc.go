// Package control carries out what users ask for.
//
// It has two halves. Operations validate a request against the store, reserve
// what it will cost, and record the object and its task, all in one
// transaction; they answer at once. Reconcilers then make it true: each looks
// at what is (the store, a host, what nodes report), asks a pure room what to
// do next, does one thing, and records its result before the next. They are
// level-triggered: started again at any point, by a change, a timer or a
// restart of the process, they go on from what is.
//
// Every external action is named by our id and safe to repeat. Errors are
// retried with backoff and jitter, shown in the object's conditions, and end
// the task when they cannot heal by themselves.
//
// A Controller owns its goroutines: Run starts them, stops them when its
// context ends, and waits for them. Operations may be called from many
// goroutines at once.
package control
