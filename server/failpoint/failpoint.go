//go:build !failpoints

// Package failpoint makes a process fail at a named place, for the fault tests.
// It does so only in a binary that is built with the tag failpoints; in any
// other its functions are empty and compiled away.
package failpoint

import "net/http"

// Hit does what FAILPOINTS says for name. Here it does nothing.
func Hit(string) error { return nil }

// Response returns a writer that hits name in the middle of the answer. Here it
// returns w.
func Response(_ string, w http.ResponseWriter) http.ResponseWriter { return w }
