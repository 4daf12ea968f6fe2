// Package cli is the command line: nouns and verbs, with the words and flags of
// Photon Controller's CLI where it had them.
//
// New builds the tree of commands; Main and Run execute one command line and
// return an exit code. A command runs in a session, which knows the context
// file, the API's client, and how the user wants to be asked and answered.
// Nouns that are listed, shown and deleted alike are declared as a resource
// (columns, and which of the client's methods to call); only what a noun does
// differently is code.
//
// What a command answers goes to standard output; questions, progress and
// errors go to standard error, so that output can be piped. Secrets are read
// from a prompt without echo or from a file, and are never written anywhere
// but the context file, which has mode 0600.
//
// A command tree serves one command line and is not safe for concurrent use.
package cli
