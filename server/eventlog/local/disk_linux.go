package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// freeSpace returns how many bytes an ordinary user may still write to the file
// system that f is on.
func freeSpace(f *os.File) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // never negative
}

// allocate takes size bytes of the disk for f.
func allocate(f *os.File, size int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, size))
}

// lockFile locks f for this process until f is closed, or fails at once.
func lockFile(f *os.File) error {
	return os.NewSyscallError("flock", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}
