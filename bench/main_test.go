package main

import (
	"os"
	"testing"
)

// TestMain lets the test binary stand for this program where that starts itself:
// as the limit, the floor or a slow disk.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		main()
		return
	}
	m.Run()
}
