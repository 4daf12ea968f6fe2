//go:build tools

// Package tools pins the programs that checking the repository needs, apart
// from what the product needs.
package tools

import _ "honnef.co/go/tools/cmd/staticcheck"
