package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A slowDisk is a directory in which every sync takes a while: a file system of
// this program's, in a process of its own, that passes everything else on to the
// disk. nbdkit's delay filter can slow down writes, but not a flush.
type slowDisk struct {
	dir string
	cmd *exec.Cmd
}

// errNoFUSE reports that this machine lets nobody mount a file system.
var errNoFUSE = errors.New("it needs /dev/fuse, and root or fusermount3 (package fuse3)")

// newSlowDisk mounts a slowDisk below dir.
func newSlowDisk(ctx context.Context, dir string, sync time.Duration) (*slowDisk, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, errNoFUSE
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	backing, mount := filepath.Join(dir, "backing"), filepath.Join(dir, "slow")
	if err := errors.Join(os.Mkdir(backing, 0o700), os.Mkdir(mount, 0o700)); err != nil {
		return nil, err
	}
	before, err := device(mount)
	if err != nil {
		return nil, err
	}
	said := new(bytes.Buffer)
	d := &slowDisk{dir: mount, cmd: exec.CommandContext(ctx, self, "slowdisk", "-from", backing, "-to", mount, "-sync", sync.String())} //nolint:gosec // ourselves
	d.cmd.Stderr = said
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) } // or it stays mounted
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.cmd.Wait() // what it says is in its output
	}()
	for {
		if now, err := device(mount); err == nil && now != before {
			return d, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("%w: %s", errNoFUSE, bytes.TrimSpace(said.Bytes()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// close unmounts the disk. What is on it stays in the directory behind it.
func (d *slowDisk) close() error {
	before, err := device(d.dir)
	if err != nil {
		return err
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	deadline := time.After(10 * time.Second)
	for {
		if now, err := device(d.dir); err == nil && now != before {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			return fmt.Errorf("%s is still mounted", d.dir)
		}
	}
}

// device returns the device that a directory is on.
func device(dir string) (uint64, error) {
	var st syscall.Stat_t
	err := syscall.Stat(dir, &st)
	return uint64(st.Dev), err //nolint:unconvert // of another type on some systems
}

// runSlowDisk serves a slow disk until ctx is done.
func runSlowDisk(ctx context.Context, args []string, _ io.Writer) error {
	flags := flag.NewFlagSet("slowdisk", flag.ContinueOnError)
	from := flags.String("from", "", "the directory to pass everything on to")
	to := flags.String("to", "", "the empty directory to mount it at")
	sync := flags.Duration("sync", 5*time.Millisecond, "how long a sync takes at least")
	if err := flags.Parse(args); err != nil {
		return err
	}
	root, err := fs.NewLoopbackRoot(*from)
	if err != nil {
		return err
	}
	loopback, ok := root.(*fs.LoopbackNode)
	if !ok {
		return fmt.Errorf("the root is a %T", root)
	}
	mounted, err := fs.Mount(*to, &slowNode{LoopbackNode: loopback, sync: *sync}, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "slowdisk", Name: "slowdisk", DirectMount: true, MaxWrite: 1 << 20},
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		for mounted.Unmount() != nil { // somebody has a file open
			<-time.After(10 * time.Millisecond)
		}
	})
	mounted.Wait()
	return nil
}

// A slowNode is a file or directory of a slow disk.
type slowNode struct {
	*fs.LoopbackNode
	sync time.Duration
}

// WrapChild implements fs.NodeWrapChilder.
func (n *slowNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	if loopback, ok := child.(*fs.LoopbackNode); ok {
		return &slowNode{LoopbackNode: loopback, sync: n.sync}
	}
	return child
}

// Fsync implements fs.NodeFsyncer: it syncs the file on the disk, and then waits
// until the time is over.
func (n *slowNode) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	over := time.After(n.sync)
	file, ok := f.(fs.FileFsyncer)
	if !ok {
		return syscall.EINVAL
	}
	errno := file.Fsync(ctx, flags)
	<-over
	return errno
}
