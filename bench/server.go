package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A server is Sluice or the limit server in a child process, on a data
// directory that was missing when it started and is removed when it is stopped.
type server struct {
	callbackAddr string
	grpcAddr     string // Sluice only
	httpAddr     string // Sluice only
	dir          string
	command      []string // program and arguments, to start it again
	cmd          *exec.Cmd
	output       *bytes.Buffer // what the process printed; read it after the process ended
}

// A rig is what every measurement needs.
type rig struct {
	dir    string // removed by close
	binary string // Sluice, as it ships
}

// newRig makes a directory in parent, or where the system keeps temporary files
// when that is "", builds Sluice from the module around this one, and says on
// out what the measurements are taken on.
func newRig(ctx context.Context, parent string, out io.Writer) (*rig, error) {
	dir, err := os.MkdirTemp(parent, "sluice-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir, binary: filepath.Join(dir, "sluice")}
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", r.binary, "./cmd/sluice") //nolint:gosec // our own path
	if text, err := build.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("build sluice: %w\n%s", err, text), r.close())
	}
	description, err := machine(dir)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	fmt.Fprintln(out, description)
	return r, nil
}

func (r *rig) close() error { return os.RemoveAll(r.dir) }

// startSluice starts Sluice with its defaults, but for addresses, the data
// directory and profiles to be asked for, and waits until it answers.
func (r *rig) startSluice(ctx context.Context) (*server, error) {
	addrs, err := freeAddrs(ctx, 3)
	if err != nil {
		return nil, err
	}
	s := &server{callbackAddr: addrs[0], grpcAddr: addrs[1], httpAddr: addrs[2], dir: filepath.Join(r.dir, "data")}
	s.command = []string{
		r.binary, "serve", "--data-dir", s.dir, "--pprof",
		"--callback-addr", addrs[0], "--grpc-addr", addrs[1], "--http-addr", addrs[2],
	}
	return s, s.start(ctx)
}

// startLimit starts the limit server and waits until it answers.
func (r *rig) startLimit(ctx context.Context) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(ctx, 1)
	if err != nil {
		return nil, err
	}
	s := &server{callbackAddr: addrs[0], dir: filepath.Join(r.dir, "data")}
	s.command = []string{self, "limit", "-dir", s.dir, "-addr", addrs[0]}
	return s, s.start(ctx)
}

// start starts the process and returns when a first callback was answered.
func (s *server) start(ctx context.Context) error {
	s.output = new(bytes.Buffer)
	s.cmd = exec.CommandContext(ctx, s.command[0], s.command[1:]...) //nolint:gosec // Sluice or this program
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := postOne(ctx, s.callbackAddr)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("wait for %s: %w", s.command[0], err), s.stop())
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func postOne(ctx context.Context, addr string) error {
	p, err := dial(ctx, addr, defaultChats)
	if err != nil {
		return err
	}
	defer p.close()
	return p.post()
}

// stop ends the process in good order and removes its data. What that leaves
// to write back is written before it returns, so that the next measurement
// does not pay for it.
func (s *server) stop() error {
	err := errors.Join(s.end(), os.RemoveAll(s.dir))
	syscall.Sync()
	return err
}

// end ends the process in good order and leaves its data for another start.
func (s *server) end() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(s.cmd.Path), err, s.output)
	}
	return nil
}

// kill ends the process as a crash would.
func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // says that it was killed
	return nil
}

// freeAddrs returns n loopback addresses that nothing listened on a moment ago.
func freeAddrs(ctx context.Context, n int) (addrs []string, err error) {
	var config net.ListenConfig
	for range n {
		l, listenErr := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if listenErr != nil {
			return nil, listenErr
		}
		defer func() { err = errors.Join(err, l.Close()) }() // only now, so that all are different
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
