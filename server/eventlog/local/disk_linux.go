package eventlog

import (
	"os"

	"golang.org/x/sys/unix"
)

// defaultSync is SyncGroup: Linux has syncfs.
const (
	defaultSync  = SyncGroup
	canSyncGroup = true
)

// syncFileSystem writes out the file system that f is on: data, directories and
// metadata. Since Linux 5.8 it reports write errors that came since f was
// opened, each once.
func syncFileSystem(f *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// syncFile writes out what f holds, and of its metadata what is needed to read
// it. It reports write errors that came since f was opened.
func syncFile(f *os.File) error {
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd())))
}

// freeSpace returns how many bytes an ordinary user may still write to the file
// system that f is on.
func freeSpace(f *os.File) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // never negative
}

// lockFile locks f for this process until f is closed, or fails at once.
func lockFile(f *os.File) error {
	return os.NewSyscallError("flock", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}
