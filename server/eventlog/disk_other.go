//go:build !linux

package eventlog

import (
	"errors"
	"math"
	"os"
)

// defaultSync is SyncAlways: there is no syncfs here.
const defaultSync = SyncAlways

func syncFileSystem(*os.File) error {
	return errors.New("sync mode \"group\" needs syncfs, which only Linux has: use \"always\"")
}

// freeSpace knows nothing here, so that MinFree bounds nothing.
func freeSpace(*os.File) (uint64, error) { return math.MaxUint64, nil }

// lockFile does not lock here: running two gateways on one directory is for the
// operator to avoid.
func lockFile(*os.File) error { return nil }
