//go:build !linux

package eventlog

import (
	"math"
	"os"
)

// defaultSync is SyncAlways: there is no syncfs here, so SyncGroup is refused.
const (
	defaultSync  = SyncAlways
	canSyncGroup = false
)

// syncFileSystem does nothing: with SyncAlways the server has synced each
// record by itself.
func syncFileSystem(*os.File) error { return nil }

func syncFile(f *os.File) error { return f.Sync() }

// freeSpace knows nothing here, so that MinFree bounds nothing.
func freeSpace(*os.File) (uint64, error) { return math.MaxUint64, nil }

// lockFile does not lock here: running two gateways on one directory is for the
// operator to avoid.
func lockFile(*os.File) error { return nil }
