//go:build chaos

package chaos

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A disk is a file system on a block device that can be cut off, stopped or made
// to fail:
//
//	ext4 on a loop device on nbdfuse on nbdkit, whose cache keeps in memory what
//	is written until it is flushed, on an image file
//
// kill -9 of nbdkit is a power cut: what was not flushed is gone.
type disk struct {
	t      *testing.T
	dir    string // of the gateway, on the disk
	base   string
	nbdkit int // process id
	fuse   *exec.Cmd
	gone   bool // cut, or unmounted
}

// newDisk makes a disk of so many MiB with an empty file system, mounted. More
// is what nbdkit is told beside: a filter and its settings.
func newDisk(t *testing.T, mib int, more ...string) *disk {
	t.Helper()
	needs(t, "nbdkit", "nbdfuse", "fusermount3", "mkfs.ext4")
	d := &disk{t: t, base: t.TempDir()}
	format(t, d.image(), mib)
	for _, sub := range []string{"nbd", "mnt", "after"} {
		if err := os.Mkdir(filepath.Join(d.base, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pidFile, device := filepath.Join(d.base, "pid"), filepath.Join(d.base, "nbd", "disk")
	args := []string{device, "[", "nbdkit", "-f", "--pidfile", pidFile}
	if len(more) > 0 {
		args, more = append(args, more[0]), more[1:]
	}
	args = append(append(args, "--filter=cache", "file", d.image(), "cache=writeback"), more...)
	d.fuse = exec.Command("nbdfuse", append(args, "]")...)
	var said bytes.Buffer
	d.fuse.Stdout, d.fuse.Stderr = &said, &said
	if err := d.fuse.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	if !within(patience, func() bool {
		pid, _ := os.ReadFile(pidFile)
		d.nbdkit, _ = strconv.Atoi(strings.TrimSpace(string(pid)))
		_, err := os.Stat(device)
		return d.nbdkit > 0 && err == nil
	}) {
		t.Fatalf("nbdfuse does not start: %s", said.String())
	}
	command(t, "mount", "-o", "loop", device, d.mount())
	d.dir = filepath.Join(d.mount(), "data")
	return d
}

func (d *disk) image() string { return filepath.Join(d.base, "disk.img") }
func (d *disk) mount() string { return filepath.Join(d.base, "mnt") }

// format makes an image file with an empty file system.
func format(t *testing.T, image string, mib int) {
	t.Helper()
	command(t, "truncate", "-s", strconv.Itoa(mib)+"M", image)
	command(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
}

func (d *disk) signal(s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(d.nbdkit, s); err != nil {
		d.t.Fatalf("signal nbdkit: %v", err)
	}
}

// stop has the disk not answer until resume is called.
func (d *disk) stop()   { d.t.Helper(); d.signal(syscall.SIGSTOP) }
func (d *disk) resume() { d.t.Helper(); d.signal(syscall.SIGCONT) }

// cut cuts the power: the disk forgets what was not flushed, and is gone.
func (d *disk) cut() { d.t.Helper(); d.signal(syscall.SIGKILL) }

// unmount takes the disk away.
func (d *disk) unmount() {
	if d.gone {
		return
	}
	d.gone = true
	_ = exec.Command("umount", "-l", d.mount()).Run()
	_ = exec.Command("fusermount3", "-u", "-z", filepath.Join(d.base, "nbd")).Run()
}

// again mounts the image, as after power came back, and returns the gateway's
// directory.
func (d *disk) again() string {
	d.t.Helper()
	d.unmount()
	after := filepath.Join(d.base, "after")
	command(d.t, "mount", "-o", "loop", d.image(), after)
	d.t.Cleanup(func() { _ = exec.Command("umount", "-l", after).Run() })
	return filepath.Join(after, "data")
}

// close takes everything down, whatever state it is in. A gateway that waits for
// the disk must have been killed before.
func (d *disk) close() {
	_ = syscall.Kill(d.nbdkit, syscall.SIGCONT)
	d.unmount()
	_ = syscall.Kill(d.nbdkit, syscall.SIGKILL)
	ended := make(chan error, 1)
	go func() { ended <- d.fuse.Wait() }()
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
		_ = d.fuse.Process.Kill()
		<-ended
	}
}

// mountTmpfs mounts a file system in memory and returns where.
func mountTmpfs(t *testing.T, mib int) string {
	t.Helper()
	needs(t)
	dir := t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", "size="+strconv.Itoa(mib)+"m", "tmpfs", dir)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// mountImage mounts an image file and returns where.
func mountImage(t *testing.T, image string, options string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "mount", "-o", "loop"+options, image, dir)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	return dir
}

// An injection is strace making system calls of a process fail.
type injection struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  string
	said bytes.Buffer
}

// inject has calls of g fail as what says, in strace's words, from now on.
func (g *gateway) inject(calls, what string) *injection {
	g.t.Helper()
	needs(g.t, "strace")
	in := &injection{t: g.t, out: filepath.Join(g.t.TempDir(), "strace.out")}
	in.cmd = exec.Command("strace", "-f", "-qq", "-p", strconv.Itoa(g.pid()), "-o", in.out,
		"-e", "trace="+calls, "-e", "inject="+calls+":"+what)
	in.cmd.Stderr = &in.said
	if err := in.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(in.end)
	eventually(g.t, patience, "strace is attached", func() bool {
		status, _ := os.ReadFile("/proc/" + strconv.Itoa(g.pid()) + "/status")
		return bytes.Contains(status, []byte("TracerPid:\t"+strconv.Itoa(in.cmd.Process.Pid)))
	})
	return in
}

// count returns how many calls have failed.
func (in *injection) count() int {
	out, _ := os.ReadFile(in.out)
	return bytes.Count(out, []byte("(INJECTED)"))
}

// end lets go of the process.
func (in *injection) end() {
	if in.cmd.ProcessState == nil {
		_ = in.cmd.Process.Signal(syscall.SIGTERM)
		_ = in.cmd.Wait()
	}
}

// mustHappen checks that the fault was one.
func (in *injection) mustHappen() {
	in.t.Helper()
	if in.count() == 0 {
		in.t.Fatalf("no call has failed: the fault did not happen; strace said %q", in.said.String())
	}
}
